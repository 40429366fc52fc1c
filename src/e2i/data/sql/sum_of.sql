sum({left}::DOUBLE - {left_mean})

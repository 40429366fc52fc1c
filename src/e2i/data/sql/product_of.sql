sum(({left}::DOUBLE - {left_mean}) * ({right}::DOUBLE - {right_mean}))

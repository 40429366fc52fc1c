({column}::DOUBLE - {mean}) AS {name}

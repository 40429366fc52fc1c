avg({column}::DOUBLE)

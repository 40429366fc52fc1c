({column} IS NOT NULL AND NOT isnan({column}::DOUBLE))

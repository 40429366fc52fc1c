 + {coefficient} * ({column}::DOUBLE - {mean})

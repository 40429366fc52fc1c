({column} IS NOT NULL)

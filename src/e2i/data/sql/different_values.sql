, approx_count_distinct({column})

{complete} AND {unit} NOT IN (
  SELECT {unit} FROM {source} WHERE {complete} GROUP BY {unit} HAVING min({time}) FILTER (WHERE {treatment}::DOUBLE <> 0) = min({time})
)

read_csv($path, nullstr = $missing)

(epoch({column}) / 86400)

({column} = {level})

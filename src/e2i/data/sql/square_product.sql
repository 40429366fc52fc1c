sum(residual * residual * {left} * {right})

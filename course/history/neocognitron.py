"""The Neocognitron: S-cells that learn features without a teacher, C-cells that blur.

Equations

    (1)  v[n,i,j]   = sqrt(sum over c,u,v of c[u,v] * x[n,c,i+u,j+v]^2)
    (2)  y[n,f,i,j] = r * max(0, (1 + e[n,f,i,j]) / (1 + 2r/(1+r) * b[f] * v[n,i,j]) - 1)
    ...
"""

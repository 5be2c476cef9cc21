"""The machines that led to convolutional networks, one file each; all of them run.

perceptron      Rosenblatt's Mark I: units that learn from their mistakes
adaline         Widrow and Hoff: the error of the sum, not of the answer
madaline        many Adalines and a vote: what one line cannot do
hubel_wiesel    cells of the visual cortex, and bars of every orientation
neocognitron    Fukushima: S-cells that learn without a teacher, C-cells that blur
backprop_1986   Rumelhart, Hinton and Williams: XOR by back-propagation
"""

"""The code that runs models: one small interface, and one package for each framework.

api         the interface: Backend, Model, Instance, their arguments, results and errors
checks      checks of inputs, options and declared signatures that the backends share
registry    finds backends by name through the entry-point group `inferd.backends`
onnx, torch, tensorflow     one package each; a framework is imported only when a model needs it
"""

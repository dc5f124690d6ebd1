"""What runs models: one small interface, one file per framework.

api         the interface: Backend, Model, Instance, and the values they speak in
registry    finds backends by name through the entry-point group `inferd.backends`
onnx, torch, tensorflow     the frameworks; none is imported before a model needs it
"""

"""OpenVINO's intermediate representation: an XML of layers and a file of numbers."""

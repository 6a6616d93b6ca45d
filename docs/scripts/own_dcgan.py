"""A DCGAN of your own in PyTorch: sharpen an 8 x 8 view of one of its images."""

import jax
import torch
from torch import nn

import jaxgen
from weights_convert.pytorch import convert

layers = []  # your trained network; the file of its state dict alone would do
for inputs, outputs, *shape in [(100, 128, 4, 1, 0), (128, 64, 4, 2, 1), (64, 32, 4, 2, 1)]:
    layers += [nn.ConvTranspose2d(inputs, outputs, *shape), nn.BatchNorm2d(outputs), nn.ReLU()]
net = nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh())
torch.save(net.state_dict(), "dcgan.pth")

convert("dcgan.pth", "dcgan", "dcgan.safetensors")  # once; the file is read, never run
generator, prior = jaxgen.load("dcgan.safetensors"), jaxgen.Gaussian.standard(100)
truth = generator(prior.sample(jax.random.key(1)))  # [32, 32, 3] in [0, 1]
view = truth.reshape(8, 4, 8, 4, 3).mean((1, 3))
found = jaxgen.tasks.super_resolve(jax.random.key(0), generator, view, 4, prior=prior)
jaxgen.plot.grid(found.samples[:16]).savefig("own_dcgan.png")
print(found.misfit, *found.notes)

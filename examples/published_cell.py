"""Build the network of a published cell and train it in a loop of your own, with nothing but torch."""

import torch
import torch.nn.functional as F

from cdarts import create_model

model = create_model("cdarts-cifar10", num_classes=10, cells=3, channels=4, image_channels=1)
print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")

images, labels = torch.rand(32, 1, 16, 16), torch.arange(32) % 10
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(10):
    loss = F.cross_entropy(model(images).logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.3f}")

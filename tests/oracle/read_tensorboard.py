"""Prints what TensorBoard's own reader (PyPI: tensorboard) finds in a run's folder, a line each, for tensorboard_spec."""

import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

found = EventAccumulator(sys.argv[1], size_guidance={"tensors": 0, "scalars": 0, "images": 0})
found.Reload()
for name in sorted(found.Tags()["scalars"]):
    print(name, *[f"{event.step}={event.value:.6g}" for event in found.Scalars(name)])
for name in found.Tags()["tensors"]:
    for event in found.Tensors(name):
        print(name, event.step, event.tensor_proto.string_val[0].decode())
for name in found.Tags()["images"]:
    for event in found.Images(name):
        print(name, event.step, event.width, event.height, len(event.encoded_image_string))

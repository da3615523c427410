"""What is seen in a photo, and whether two damages are one: pure functions of pixels and values, no I/O.

decode -> detect -> regions -> embed, features -> `perceive`; two photos -> looks -> verify, decide.
Images are numpy uint8 (height, width, 3) in OpenCV's order, BGR.
"""

import cv2

DEFAULT_MAX_PIXELS = 50_000_000
"""Of a photo. OpenCV's own limit, the second wall behind `formats`, is set to the same in `damagewatch`, since
it is read while OpenCV is imported; `decode.check_pixel_limit` proves that it holds."""

# Photos run in parallel, one thread each: OpenCV's own pool would only contend with them.
cv2.setNumThreads(1)

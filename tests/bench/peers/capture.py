"""The camera thread that both home-made servers share: OpenCV, the camera's own JPEG where it sends one.

Runs in: a thread of the peer's process.
"""

import argparse
import threading
from collections.abc import Callable

import cv2


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--format", default="MJPG")
    return parser.parse_args()


def read_for_ever(size: str, code: str, publish: Callable[[bytes], None]) -> None:
    width, height = map(int, size.split("x"))
    camera = cv2.VideoCapture("/dev/video0", cv2.CAP_V4L2)
    camera.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*code))
    camera.set(cv2.CAP_PROP_FRAME_WIDTH, width)
    camera.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    camera.set(cv2.CAP_PROP_FPS, 30)
    if code == "MJPG":
        camera.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    while True:
        read, picture = camera.read()
        if not read:
            continue
        if code != "MJPG":
            picture = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
        publish(picture.tobytes())


def start(size: str, code: str, publish: Callable[[bytes], None]) -> None:
    threading.Thread(target=read_for_ever, args=(size, code, publish), daemon=True).start()

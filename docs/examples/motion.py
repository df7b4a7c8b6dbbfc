"""Says when something moves in front of a Camdock: motion.py http://127.0.0.1:8000

`pip install 'camdock[client]'` brings what it needs. Ends with status 0 if anything moved, 1 if nothing did.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from camdock.client import Camera, ClientError

DIFFERENT = 25  # of 255: more than a sensor's noise
SHARE = 0.002  # of the picture: a bird at the far end of a garden


def main() -> int:
    """Look until told to stop; a line whenever motion begins or ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of the service, or the whole address of a stream")
    parser.add_argument("--name", help="which camera; the first one without it")
    parser.add_argument("--token", help="the service's, or its viewers'")
    parser.add_argument("--seconds", type=float, help="how long to look; until Ctrl-C without it")
    given = parser.parse_args()
    moved, moving, usual = False, False, None
    # Small and slow is enough for this, and the service makes it once for all who ask for the same.
    with Camera(given.url, name=given.name, token=given.token, width=320, fps=5) as camera:
        due = None if given.seconds is None else time.monotonic() + given.seconds
        while due is None or time.monotonic() < due:
            frame = camera.next(None if due is None else 10)
            grey = frame.image.mean(axis=2, dtype=np.float32)  # (H, W)
            if usual is None or usual.shape != grey.shape:
                usual = grey
            share = float((np.abs(grey - usual) > DIFFERENT).mean())
            usual = 0.9 * usual + 0.1 * grey  # what stays for some seconds belongs to the picture
            if (share > SHARE) != moving:
                moving = not moving
                when = time.strftime("%H:%M:%S", time.localtime(frame.captured_at))
                print(when, f"motion in {share:.1%} of picture {frame.seq}" if moving else "still again", flush=True)
            moved = moved or moving
    return 0 if moved else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ClientError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)

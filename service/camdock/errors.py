"""The errors a camera can have: their stable codes, their HTTP status, whether trying again can help.

Runs in: every process. Imports nothing, so that the worker can report an error when all else is broken.

CameraError                 code                    HTTP  retry
├── SourceError                                     503
│   ├── SourceMissing       source_missing                yes   no such device, nothing at the URL
│   ├── SourceBusy          source_busy                   yes   another process holds it
│   ├── SourceStalled       source_stalled                yes   open, but no frame before the deadline
│   ├── SourceFailed        source_failed                 yes   the driver answered with an error
│   ├── WorkerDied          worker_died                   yes   the driver crashed, or broke the wire
│   ├── SourceDenied        source_denied                 no    permissions: a person must act
│   └── DriverMissing       driver_missing                no    library absent, or does not load (ABI)
├── SettingUnsupported      setting_unsupported     422
├── SettingOutOfRange       setting_out_of_range    422         carries the limits
├── CaptureMissing          capture_missing         404         no capture of that name
├── RequestInvalid          request_invalid         422         a parameter or a field is not what it should be
├── ImageUnreadable         image_unreadable        422
├── OperationImpossible     operation_impossible    422         fits no such picture: a crop outside of it
├── PictureTookTooLong      picture_took_too_long   504         work on a picture that somebody sent
├── VisionOff               vision_off              403         pictures may not be sent to Google
├── VisionFailed            vision_failed           503   yes   Google refuses, or cannot be reached
├── UploadTooLarge          upload_too_large        413
├── UploadTooSlow           upload_too_slow         408         a picture, or any other body
├── UploadUnsupported       upload_unsupported      415         none of the kinds of pictures that are taken
├── TooManyPictures         too_many_pictures       503   yes   as many pictures are being worked on as may be
├── PixelsUnavailable       pixels_unavailable      503   yes   who works on pictures does not start: no picture's fault
├── StorageFailed           storage_failed          507         cannot be written: permissions, read-only
│   └── StorageFull         storage_full            507
├── TooManyRenditions       too_many_renditions     429   yes   other sizes and rates of a camera: four at a time
└── CameraMissing           camera_missing          404         no camera of that name
"""

from __future__ import annotations

from typing import ClassVar


class CameraError(Exception):
    """Something about one camera went wrong.

    message  names the thing: "/dev/video0 is held by pid 812"
    hint     what to do about it; empty when nobody can do anything
    """

    code: ClassVar[str] = "camera_error"
    http_status: ClassVar[int] = 500
    retry: ClassVar[bool] = True
    summary: ClassVar[str] = "Camera error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SourceError(CameraError):
    """The source gives no pictures."""

    code = "source_error"
    http_status = 503
    summary = "No picture from the source"


class SourceMissing(SourceError):
    """There is no such device, or nothing at the address."""

    code = "source_missing"
    summary = "Source not found"


class SourceBusy(SourceError):
    """Another process holds the device."""

    code = "source_busy"
    summary = "Source in use"


class SourceStalled(SourceError):
    """The source is open, but no frame came before the deadline."""

    code = "source_stalled"
    summary = "Source gives no frames"


class SourceFailed(SourceError):
    """The driver or the far end answered with an error."""

    code = "source_failed"
    summary = "Source reported an error"


class WorkerDied(SourceError):
    """The worker process ended by itself, or sent something that is no message."""

    code = "worker_died"
    summary = "Driver process died"


class SourceDenied(SourceError):
    """The operating system or the far end refuses access; a person must act."""

    code = "source_denied"
    retry = False
    summary = "Access to the source denied"


class DriverMissing(SourceError):
    """The driver library is absent, or does not load."""

    code = "driver_missing"
    retry = False
    summary = "Driver library missing"


class SettingUnsupported(CameraError):
    """The source has no such setting."""

    code = "setting_unsupported"
    http_status = 422
    summary = "Setting not supported by this source"


class SettingOutOfRange(CameraError):
    """The value lies outside what the source can do; the message carries the limits."""

    code = "setting_out_of_range"
    http_status = 422
    summary = "Setting out of range"


class CaptureMissing(CameraError):
    """There is no capture of that name, or no metadata beside it."""

    code = "capture_missing"
    http_status = 404
    summary = "No such capture"


class RequestInvalid(CameraError):
    """Something that a request says is not what it should be; the message names it."""

    code = "request_invalid"
    http_status = 422
    summary = "The request cannot be understood"


class ImageUnreadable(CameraError):
    """The bytes are not a picture that we can decode."""

    code = "image_unreadable"
    http_status = 422
    summary = "Picture cannot be read"


class OperationImpossible(CameraError):
    """An operation cannot be done to this picture; the message carries its place in the list."""

    code = "operation_impossible"
    http_status = 422
    summary = "Operation impossible with this picture"


class PictureTookTooLong(CameraError):
    """Work on a picture was given up."""

    code = "picture_took_too_long"
    http_status = 504
    summary = "Picture took too long"


class VisionOff(CameraError):
    """Pictures would leave the machine, and nobody has said that they may."""

    code = "vision_off"
    http_status = 403
    summary = "Sending pictures to Google is off"


class VisionFailed(CameraError):
    """Google Cloud Vision cannot be asked, or does not answer."""

    code = "vision_failed"
    http_status = 503
    retry = True
    summary = "Google Cloud Vision failed"


class UploadTooLarge(CameraError):
    """A request brings more bytes than it may."""

    code = "upload_too_large"
    http_status = 413
    summary = "Upload too large"


class UploadTooSlow(CameraError):
    """A request's body did not arrive in time."""

    code = "upload_too_slow"
    http_status = 408
    summary = "Upload too slow"


class UploadUnsupported(CameraError):
    """The bytes are of no kind that is taken."""

    code = "upload_unsupported"
    http_status = 415
    summary = "Upload of an unknown kind"


class TooManyPictures(CameraError):
    """As many pictures are being worked on, and wait for it, as may be."""

    code = "too_many_pictures"
    http_status = 503
    summary = "Too many pictures at a time"


class PixelsUnavailable(CameraError):
    """The process that works on pictures does not start. No picture has anything to do with that."""

    code = "pixels_unavailable"
    http_status = 503
    summary = "Nobody to work on pictures"


class StorageFailed(CameraError):
    """Something could not be written where it is kept."""

    code = "storage_failed"
    http_status = 507
    summary = "Could not be written"


class StorageFull(StorageFailed):
    """The disk, or the quota, is full."""

    code = "storage_full"
    summary = "The disk is full"


class TooManyRenditions(CameraError):
    """A camera is already shown in as many sizes, rates and qualities as it may be."""

    code = "too_many_renditions"
    http_status = 429
    summary = "Too many renditions"


class CameraMissing(CameraError):
    """No camera of that name is configured."""

    code = "camera_missing"
    http_status = 404
    summary = "No such camera"


def every_error() -> dict[str, type[CameraError]]:
    """Every class of the tree by its code, the abstract ones too."""

    def below(cls: type[CameraError]) -> list[type[CameraError]]:
        return [cls] + [found for child in cls.__subclasses__() for found in below(child)]

    return {cls.code: cls for cls in below(CameraError)}


def from_code(code: str, message: str, hint: str = "") -> CameraError:
    """The error that a worker named on the wire; a code we do not know becomes a SourceFailed."""
    return every_error().get(code, SourceFailed)(message, hint)

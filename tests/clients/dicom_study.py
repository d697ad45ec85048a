"""Writes a study of secondary-capture images: many of 512 kB, and a last one with 52 frames of 1 MiB.

usage: dicom_study.py DIRECTORY COUNT        files are named INSTANCE.dcm
"""

import pathlib
import random
import sys

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

# Secondary Capture Image Storage and its multi-frame form.
SINGLE = "1.2.840.10008.5.1.4.1.1.7"
MULTI = "1.2.840.10008.5.1.4.1.1.7.2"
# A root made of a UUID (PS3.5, B.2); nobody registers below it.
ROOT = "2.25.140297368122312"


def main() -> int:
    directory, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    directory.mkdir(parents=True)
    noise = random.Random(1)
    for number in range(1, count + 1):
        last = number == count
        image(directory, number, noise, rows=1024 if last else 512, frames=52 if last else 1)
    return 0


def image(directory: pathlib.Path, number: int, noise: random.Random, rows: int, frames: int) -> None:
    instance = f"{ROOT}.1.1.{number}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MULTI if frames > 1 else SINGLE
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = directory / f"{instance}.dcm"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = instance
    data.StudyInstanceUID = f"{ROOT}.1"
    data.SeriesInstanceUID = f"{ROOT}.1.1"
    data.PatientName = "Sample^Test"
    data.PatientID = "PAYLOAD-MARKER-5d1c"
    data.Modality = "OT"
    data.InstanceNumber = number
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows = rows
    data.Columns = rows
    data.BitsAllocated = 8 if frames > 1 else 16
    data.BitsStored = data.BitsAllocated
    data.HighBit = data.BitsAllocated - 1
    data.PixelRepresentation = 0
    if frames > 1:
        data.NumberOfFrames = frames
    data.add_new("PixelData", "OW", noise.randbytes(rows * rows * frames * data.BitsAllocated // 8))
    data.save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    sys.exit(main())

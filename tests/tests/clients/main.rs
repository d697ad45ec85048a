//! Third-party programs on both ends of a tunnel: python-hl7, curl with nginx, dcmtk with pynetdicom, OpenSSH. What
//! arrives is compared byte for byte, and counted at the programs and at both gateways.
//!
//! `tests/run clients` installs the programs, makes the Python environment of `tests/requirements.txt` and names its
//! interpreter in `GATEWAY_TEST_PYTHON`.

mod acme;
mod acme_front;
mod dicom;
mod hl7;
mod http;
mod programs;
mod sftp;

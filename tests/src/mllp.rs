//! The engine's two MLLP ends, as measured on a running one: [`Engine`] is its TCP Listener, [`Sender`] its TCP
//! Sender. Both can be polite or as rude as real partners are, and both tell a FIN from an RST exactly.

mod engine;
mod sender;

pub use engine::{Ending, Engine, MAX_CONNECTIONS, Manners, Received};
pub use sender::{Broken, Connection, MessageStatus, Sender, Verdict};

/// Start of a frame.
const START: u8 = 0x0b;
/// End of a frame.
const END: [u8; 2] = [0x1c, 0x0d];

/// Puts a message into a frame.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + 3);
    bytes.push(START);
    bytes.extend_from_slice(message);
    bytes.extend_from_slice(&END);
    bytes
}

/// Takes the first complete frame out of `buffer`, junk before it included. `from` is where the last search ended: a
/// 28 MB message arrives in thousands of pieces, and searching it from the start each time would take minutes.
fn take_frame(buffer: &mut Vec<u8>, from: &mut usize) -> Option<Vec<u8>> {
    let Some(start) = buffer.iter().position(|byte| *byte == START) else {
        buffer.clear();
        *from = 0;
        return None;
    };
    let search = (*from).max(start + 1);
    let Some(end) = buffer[search..].windows(2).position(|pair| pair == END).map(|at| search + at) else {
        *from = buffer.len().saturating_sub(1);
        return None;
    };
    let message = buffer[start + 1..end].to_vec();
    buffer.drain(..end + 2);
    *from = 0;
    Some(message)
}

/// MSH-10 of the first message header.
pub fn control_id(message: &[u8]) -> Option<String> {
    field(message, b"MSH", 9)
}

/// MSA-1 and MSA-2 of an acknowledgement.
fn acknowledgement(message: &[u8]) -> Option<(String, String)> {
    Some((field(message, b"MSA", 1)?, field(message, b"MSA", 2)?))
}

/// The answer of an engine.
fn acknowledge(code: &str, control_id: &str) -> Vec<u8> {
    format!("MSH|^~\\&|LIS|SOUTH|EHR|NORTH|20250301080000||ACK|A{control_id}|T|2.5.1\rMSA|{code}|{control_id}\r")
        .into_bytes()
}

fn field(message: &[u8], segment: &[u8], index: usize) -> Option<String> {
    let line = message.split(|byte| *byte == b'\r').find(|line| line.starts_with(segment))?;
    let field = line.split(|byte| *byte == b'|').nth(index)?;
    Some(String::from_utf8_lossy(field).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_pieces_after_junk_and_two_at_once() {
        let mut bytes = b"junk".to_vec();
        bytes.extend(frame(b"one"));
        bytes.extend(frame(b"two"));
        let (mut buffer, mut from, mut found) = (Vec::new(), 0, Vec::new());
        for byte in bytes {
            buffer.push(byte);
            found.extend(take_frame(&mut buffer, &mut from));
        }
        assert_eq!(found, [b"one".to_vec(), b"two".to_vec()]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn an_acknowledgement_names_the_control_id_it_answers() {
        let answer = acknowledge("AA", "X1");
        assert_eq!(acknowledgement(&answer), Some(("AA".into(), "X1".into())));
    }
}

//! Counts MLLP frames in passing bytes; never changes, keeps or delays one.
//!
//! An integration engine takes a FIN after its message for success in some settings, even when no acknowledgement
//! came (never a FIN where a message is unacknowledged). [`Conversation`] tells whether the end of a
//! conversation leaves a message unacknowledged; the gateway then ends the engine's socket with RST instead of FIN.
//!
//! Framing (HL7 Minimal Lower Layer Protocol): `0x0B` message `0x1C 0x0D`. Bytes between frames are ignored, as
//! engines do.

use memchr::memchr;

const START: u8 = 0x0b;
const END: u8 = 0x1c;
const CR: u8 = 0x0d;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Inside,
    AfterEnd,
}

/// Counts the complete frames of one direction.
#[derive(Debug, Clone)]
pub struct FrameCounter {
    state: State,
    complete: u64,
}

impl Default for FrameCounter {
    fn default() -> Self {
        Self { state: State::Between, complete: 0 }
    }
}

impl FrameCounter {
    /// Looks at bytes that pass.
    pub fn observe(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Between => match memchr(START, bytes) {
                    Some(at) => {
                        self.state = State::Inside;
                        bytes = &bytes[at + 1..];
                    }
                    None => return,
                },
                State::Inside => match memchr(END, bytes) {
                    Some(at) => {
                        self.state = State::AfterEnd;
                        bytes = &bytes[at + 1..];
                    }
                    None => return,
                },
                State::AfterEnd => {
                    if bytes[0] == CR {
                        self.complete += 1;
                        self.state = State::Between;
                        bytes = &bytes[1..];
                    } else {
                        // A lone 0x1C inside the message (binary content): look at this byte again as content.
                        self.state = State::Inside;
                    }
                }
            }
        }
    }

    /// Frames that passed whole.
    pub fn complete(&self) -> u64 {
        self.complete
    }

    /// Whether the direction stopped in the middle of a frame.
    pub fn is_inside_frame(&self) -> bool {
        self.state != State::Between
    }
}

/// Both directions of one MLLP connection: messages one way, acknowledgements the other.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    messages: FrameCounter,
    acknowledgements: FrameCounter,
    /// Complete messages without an answer. An answer nobody waits for is not credited to a later message.
    outstanding: u64,
}

impl Conversation {
    /// Bytes from the engine that sends.
    pub fn observe_message_bytes(&mut self, bytes: &[u8]) {
        let before = self.messages.complete();
        self.messages.observe(bytes);
        self.outstanding += self.messages.complete() - before;
    }

    /// Bytes from the engine that receives.
    pub fn observe_acknowledgement_bytes(&mut self, bytes: &[u8]) {
        let before = self.acknowledgements.complete();
        self.acknowledgements.observe(bytes);
        self.outstanding = self.outstanding.saturating_sub(self.acknowledgements.complete() - before);
    }

    /// Messages that were sent (also one that was begun) and not answered by a complete frame.
    pub fn unacknowledged(&self) -> u64 {
        self.outstanding + u64::from(self.messages.is_inside_frame())
    }

    /// Whether the receiving side may end the conversation with a FIN: every message is answered, no answer is cut.
    pub fn may_end_cleanly(&self) -> bool {
        self.unacknowledged() == 0 && !self.acknowledgements.is_inside_frame()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"\x0bMSH|^~\\&|A\rPID|1\r\x1c\r";

    #[test]
    fn frames_are_counted_however_the_bytes_are_cut() {
        for cut in 0..=FRAME.len() {
            let mut counter = FrameCounter::default();
            counter.observe(&FRAME[..cut]);
            counter.observe(&FRAME[cut..]);
            assert_eq!((counter.complete(), counter.is_inside_frame()), (1, false), "cut at {cut}");
        }
    }

    #[test]
    fn junk_between_frames_and_end_bytes_inside_them_do_not_count() {
        let mut counter = FrameCounter::default();
        counter.observe(b"junk\r\n\x0bbinary \x1c inside \x1c\x1c\r\0\0\x0bnext\x1c\r");
        assert_eq!((counter.complete(), counter.is_inside_frame()), (2, false));
    }

    #[test]
    fn an_unanswered_or_half_answered_message_forbids_a_clean_end() {
        let mut talk = Conversation::default();
        assert!(talk.may_end_cleanly());
        talk.observe_message_bytes(FRAME);
        assert!(!talk.may_end_cleanly());
        talk.observe_acknowledgement_bytes(&FRAME[..5]);
        assert!(!talk.may_end_cleanly());
        talk.observe_acknowledgement_bytes(&FRAME[5..]);
        assert!(talk.may_end_cleanly());
        talk.observe_message_bytes(&FRAME[..3]);
        assert_eq!(talk.unacknowledged(), 1);
    }

    #[test]
    fn an_answer_nobody_waits_for_is_not_credited_to_a_later_message() {
        let mut talk = Conversation::default();
        talk.observe_acknowledgement_bytes(FRAME);
        talk.observe_message_bytes(FRAME);
        assert_eq!(talk.unacknowledged(), 1);
    }
}

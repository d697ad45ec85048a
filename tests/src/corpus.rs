//! Deterministic synthetic HL7 v2 messages, equal in kind to what an engine sends all day and to the worst it sends.
//!
//! ADT A01/A03/A08, ORM O01, ORU R01 with ten results, one ORU with 2,000 report lines, MDM T02 with a base64 document
//! of a chosen size, a Latin-1 message, one that asks for no acknowledgement, a batch with FHS/BHS, Z segments, escapes
//! and UTF-8 names. Every name is made of words for "sample"; nobody is meant.
//!
//! The same seed gives the same bytes on every machine.

use std::fmt::Write as _;

/// A word inside every message; where it shows up outside a message, payload has leaked.
pub const MARKER: &str = "PAYLOAD-MARKER-5d1c";

const FAMILY: [&str; 10] = [
    "Sample",
    "Próbka",
    "Muestra",
    "Campione",
    "Specimen",
    "Prüfling",
    "O\\T\\Sample",
    "Échantillon",
    "Näyte",
    "Amostra",
];
const GIVEN: [&str; 8] = ["Test", "Probe", "Tést", "Zoë", "Demo", "Dummy", "Mock", "Ünit"];
const RESULTS: [(&str, &str, &str, u32, u32); 10] = [
    ("6690-2", "Leukocytes", "10*3/uL", 40, 110),
    ("789-8", "Erythrocytes", "10*6/uL", 40, 60),
    ("718-7", "Hemoglobin", "g/dL", 120, 170),
    ("4544-3", "Hematocrit", "%", 360, 500),
    ("777-3", "Platelets", "10*3/uL", 1500, 4000),
    ("2345-7", "Glucose", "mg/dL", 700, 1800),
    ("2160-0", "Creatinine", "mg/dL", 5, 20),
    ("3094-0", "Urea nitrogen", "mg/dL", 70, 200),
    ("2951-2", "Sodium", "mmol/L", 1300, 1480),
    ("2823-3", "Potassium", "mmol/L", 30, 60),
];

/// One message, not framed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is, for people.
    pub name: String,
    /// MSH-10 of its first message header.
    pub control_id: String,
    /// Segments, each ended by a carriage return.
    pub bytes: Vec<u8>,
}

/// The generator.
#[derive(Debug, Clone)]
pub struct Corpus {
    random: SplitMix,
    prefix: String,
    count: u32,
    control_id: String,
    seconds: u64,
}

/// SplitMix64: small, fast, and the same everywhere; not for secrets.
#[derive(Debug, Clone)]
struct SplitMix(u64);

impl Corpus {
    /// A generator whose control ids start with `prefix` (at most ten characters keep MSH-10 within twenty).
    pub fn new(prefix: &str, seed: u64) -> Self {
        Self { random: SplitMix(seed), prefix: prefix.into(), count: 0, control_id: String::new(), seconds: 0 }
    }

    /// The daily mix: `count` rounds of three ADT, an ORM and an ORU, then the special cases.
    pub fn daily(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.extend(["A01", "A08", "A03"].map(|event| self.adt(event)));
            messages.push(self.orm());
            messages.push(self.oru(0));
        }
        messages.push(self.latin1());
        messages.push(self.without_acknowledgement_request());
        messages.push(self.batch());
        messages
    }

    /// The big ones: 2,000 report lines, and documents of these sizes in bytes.
    pub fn big(&mut self, documents: &[usize]) -> Vec<Message> {
        let mut messages = vec![self.oru(2000)];
        messages.extend(documents.iter().map(|size| self.mdm(*size)));
        messages
    }

    /// An admission, transfer or discharge.
    pub fn adt(&mut self, event: &str) -> Message {
        let segments = self.adt_segments(event);
        self.message(&format!("ADT_{event}"), &segments)
    }

    /// An order.
    pub fn orm(&mut self) -> Message {
        let order = self.random.between(1_000_000, 9_999_999);
        let segments = [
            self.msh("ORM^O01^ORM_O01"),
            self.pid(),
            self.pv1(),
            format!("ORC|NW|{order}^EHR|||||^^^{}^^R", self.timestamp()),
            format!("OBR|1|{order}^EHR||58410-2^CBC panel^LN|||{}", self.timestamp()),
            marker(),
        ];
        self.message("ORM_O01", &segments)
    }

    /// A result with ten values and so many report lines.
    pub fn oru(&mut self, lines: usize) -> Message {
        let segments = self.oru_segments(lines);
        self.message(if lines == 0 { "ORU_R01" } else { "ORU_R01_lines" }, &segments)
    }

    /// A document of `size` bytes, in base64, in a single segment.
    pub fn mdm(&mut self, size: usize) -> Message {
        let mut document = b"%PDF-1.4\n".to_vec();
        while document.len() < size {
            document.extend_from_slice(&self.random.next().to_le_bytes());
        }
        document.truncate(size.max(9));
        let segments = [
            self.msh("MDM^T02^MDM_T02"),
            format!("EVN|T02|{}", self.timestamp()),
            self.pid(),
            self.pv1(),
            format!("TXA|1|DS|AP|{}|||||||D{}||||||AU|||AV", self.timestamp(), self.random.between(1, 999_999)),
            format!(
                "OBX|1|ED|18842-5^Discharge summary^LN||^application^pdf^Base64^{}||||||F",
                data_encoding::BASE64.encode(&document)
            ),
            marker(),
        ];
        self.message("MDM_T02", &segments)
    }

    fn latin1(&mut self) -> Message {
        let mut segments = self.oru_segments(0);
        segments[0] = segments[0].replace("UNICODE UTF-8", "8859/1");
        segments.push("NTE|1||Zürich café µg".into());
        let mut message = self.message("ORU_latin1", &segments);
        let text = String::from_utf8_lossy(&message.bytes).into_owned();
        message.bytes = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
        message
    }

    fn without_acknowledgement_request(&mut self) -> Message {
        let mut segments = self.adt_segments("A01");
        segments[0] = segments[0].replace("|AL|NE|", "|||");
        self.message("ADT_A01_no_ack_asked", &segments)
    }

    fn batch(&mut self) -> Message {
        let mut segments: Vec<String> =
            ["FHS|^~\\&|EHR|NORTH|LIS|SOUTH|20250301", "BHS|^~\\&|EHR|NORTH|LIS|SOUTH|20250301"].map(Into::into).into();
        segments.extend(self.adt_segments("A08"));
        let first = self.control_id.clone();
        for _ in 1..5 {
            segments.extend(self.adt_segments("A08"));
        }
        segments.extend(["BTS|5", "FTS|1"].map(Into::into));
        Message { control_id: first, ..self.message("BATCH_5xADT", &segments) }
    }

    fn adt_segments(&mut self, event: &str) -> Vec<String> {
        let structure = if event == "A03" { "ADT_A03" } else { "ADT_A01" };
        vec![
            self.msh(&format!("ADT^{event}^{structure}")),
            format!("EVN|{event}|{}", self.timestamp()),
            self.pid(),
            "NK1|1|Sample^Kin|SPO".into(),
            self.pv1(),
            "AL1|1|DA|7980^Penicillin^RXN|SV|Hives".into(),
            "DG1|1||I10^Hypertension^I10|||A".into(),
            marker(),
        ]
    }

    fn oru_segments(&mut self, lines: usize) -> Vec<String> {
        let order = self.random.between(1_000_000, 9_999_999);
        let mut segments = vec![
            self.msh("ORU^R01^ORU_R01"),
            self.pid(),
            self.pv1(),
            format!("ORC|RE|{order}^EHR|{}^LIS", order + 1),
            format!("OBR|1|{order}^EHR|{}^LIS|58410-2^CBC panel^LN|||{}", order + 1, self.timestamp()),
        ];
        for (index, (code, name, unit, low, high)) in RESULTS.into_iter().enumerate() {
            let value = self.random.between(low * 8 / 10, high * 12 / 10);
            let flag = if value < low {
                "L"
            } else if value > high {
                "H"
            } else {
                "N"
            };
            segments.push(format!(
                "OBX|{}|NM|{code}^{name}^LN||{}.{}|{unit}|{}-{}|{flag}|||F",
                index + 1,
                value / 10,
                value % 10,
                low / 10,
                high / 10
            ));
        }
        for line in 1..=lines {
            segments.push(format!(
                "OBX|{}|FT|11526-1^Pathology report^LN|{line}|line {line}: no abnormality \\.br\\ see \\F\\ and \\S\\ escapes, µ and é||||||F",
                line + 10
            ));
        }
        segments.push(marker());
        segments
    }

    fn msh(&mut self, kind: &str) -> String {
        self.count += 1;
        self.control_id = format!("{}{:08}", self.prefix, self.count);
        let at = self.timestamp();
        format!("MSH|^~\\&|EHR|NORTH|LIS|SOUTH|{at}||{kind}|{}|T|2.5.1|||AL|NE||UNICODE UTF-8", self.control_id)
    }

    fn pid(&mut self) -> String {
        let record = self.random.between(100_000, 999_999);
        let (family, given) = (self.random.choose(&FAMILY), self.random.choose(&GIVEN));
        let birth = format!(
            "{}{:02}{:02}",
            self.random.between(1930, 2020),
            self.random.between(1, 12),
            self.random.between(1, 28)
        );
        let sex = self.random.choose(&["M", "F"]);
        format!(
            "PID|1||{record}^^^NORTH^MR~{}^^^STATE^SS||{family}^{given}||{birth}|{sex}||2106-3|{} Test St^^Testville^^{}^US",
            record + 7,
            self.random.between(1, 999),
            self.random.between(10_000, 99_999)
        )
    }

    fn pv1(&mut self) -> String {
        let class = self.random.choose(&["I", "O", "E"]);
        format!(
            "PV1|1|{class}|W{}^{}^A^NORTH||||{}^Attending^Test^^^Dr|||MED|||||||||V{}",
            self.random.between(1, 9),
            self.random.between(100, 499),
            self.random.between(1000, 9999),
            self.random.between(1_000_000, 9_999_999)
        )
    }

    /// Time of day goes up from message to message; the date stays, since nothing here reads it.
    fn timestamp(&mut self) -> String {
        self.seconds = (self.seconds + u64::from(self.random.between(1, 60))) % 86_400;
        format!("20250301{:02}{:02}{:02}", self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60)
    }

    fn message(&self, name: &str, segments: &[String]) -> Message {
        let mut text = String::with_capacity(segments.iter().map(|segment| segment.len() + 1).sum());
        for segment in segments {
            // Writing to a String cannot fail.
            write!(text, "{segment}\r").ok();
        }
        Message { name: name.into(), control_id: self.control_id.clone(), bytes: text.into_bytes() }
    }
}

fn marker() -> String {
    format!("ZGW|1|{MARKER}")
}

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high - low) + 1;
        low + u32::try_from(self.next() % span).unwrap_or(0)
    }

    fn choose<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.between(0, u32::try_from(list.len() - 1).unwrap_or(0)) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mllp::control_id;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        assert_eq!(Corpus::new("A", 1).daily(3), Corpus::new("A", 1).daily(3));
        assert_ne!(Corpus::new("A", 1).daily(3), Corpus::new("A", 2).daily(3));
    }

    #[test]
    fn every_message_names_its_control_id_once_and_carries_the_marker() {
        let mut corpus = Corpus::new("T", 1);
        let mut messages = corpus.daily(2);
        messages.extend(corpus.big(&[100_000]));
        assert_eq!(messages.len(), 2 * 5 + 3 + 2);
        let mut ids: Vec<&str> = messages.iter().map(|message| message.control_id.as_str()).collect();
        ids.dedup();
        assert_eq!(ids.len(), messages.len());
        for message in &messages {
            assert_eq!(control_id(&message.bytes).as_deref(), Some(message.control_id.as_str()), "{}", message.name);
            assert!(message.bytes.ends_with(b"\r"));
            assert!(message.bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes()), "{}", message.name);
            assert!(!message.bytes.contains(&0x0b) && !message.bytes.contains(&0x1c));
        }
    }

    #[test]
    fn the_latin_1_message_is_not_utf_8_and_a_document_has_its_size() {
        let mut corpus = Corpus::new("T", 1);
        assert!(std::str::from_utf8(&corpus.latin1().bytes).is_err());
        let length = corpus.mdm(3_000_000).bytes.len();
        assert!((4_000_000..4_002_000).contains(&length), "{length}");
    }
}

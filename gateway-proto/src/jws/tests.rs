use serde_json::{Value, json};

use super::*;

fn key() -> JwsKey {
    JwsKey::from_seed(&[7; 32])
}

fn encode(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

/// RFC 8037, appendix A: the key, its thumbprint, and the signature over a known message.
#[test]
fn key_thumbprint_and_signature_are_those_of_rfc_8037() {
    let seed = BASE64URL_NOPAD.decode(b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let key = JwsKey::from_seed(&seed.try_into().unwrap());
    assert_eq!(key.public().x(), "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    assert_eq!(key.public().thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(BASE64URL_NOPAD.encode(&key.0.sign(message.as_bytes()).to_bytes()), signature);
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    assert!(key.public().verify(message.as_bytes(), &signature.try_into().unwrap()));
}

#[test]
fn a_signed_text_is_read_with_its_key_and_as_its_type_only() {
    let text = sign(&key(), "a+jwt", &json!({"n": 1})).unwrap();
    let other = JwsKey::from_seed(&[8; 32]).public();
    assert_eq!(open::<Value>(&text, "a+jwt", &[other, key().public()]), Ok(json!({"n": 1})));
    assert_eq!(open::<Value>(&text, "a+jwt", &[other]), Err(JwsError::UnknownKey));
    assert_eq!(open::<Value>(&text, "b+jwt", &[key().public()]), Err(JwsError::Type));
}

#[test]
fn no_algorithm_another_one_and_headers_that_bring_keys_are_refused() {
    let text = sign(&key(), "a+jwt", &json!({"n": 1})).unwrap();
    let mut parts = text.split('.');
    let (_, claims, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let kid = key().public().thumbprint();
    let with = |header: Value| format!("{}.{claims}.{signature}", encode(&header));
    let refused = |header: Value| open::<Value>(&with(header), "a+jwt", &[key().public()]).unwrap_err();
    for alg in ["none", "None", "HS256", "ES256", "eddsa", ""] {
        assert_eq!(refused(json!({"alg": alg, "typ": "a+jwt", "kid": kid})), JwsError::Algorithm, "{alg}");
    }
    assert_eq!(refused(json!({"typ": "a+jwt", "kid": kid})), JwsError::Algorithm);
    assert_eq!(refused(json!({"alg": "EdDSA", "typ": "a+jwt"})), JwsError::Malformed, "no key id");
    for extra in ["jwk", "jku", "x5u", "crit", "b64"] {
        let header = json!({"alg": "EdDSA", "typ": "a+jwt", "kid": kid, extra: "x"});
        assert_eq!(refused(header), JwsError::Malformed, "{extra}");
    }
    // The header is part of what is signed: the same content in another order is another text.
    assert_eq!(refused(json!({"alg": "EdDSA", "typ": "a+jwt", "kid": kid})), JwsError::BadSignature);
    let unsigned = format!("{}.{claims}.", encode(&json!({"alg": "EdDSA", "typ": "a+jwt", "kid": kid})));
    assert_eq!(open::<Value>(&unsigned, "a+jwt", &[key().public()]), Err(JwsError::BadSignature));
    for text in ["", ".", "..", "a.b", "a.b.c.d", &"x".repeat(5000)] {
        assert!(open::<Value>(text, "a+jwt", &[key().public()]).is_err(), "{text}");
    }
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let text = sign(&key(), "a+jwt", &json!({"n": 1})).unwrap();
    for position in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(open::<Value>(&changed, "a+jwt", &[key().public()]).is_err(), "byte {position}");
    }
}

#[test]
fn a_text_that_brings_its_key_counts_for_that_key_only() {
    let text = sign_with_key(&key(), "p+jwt", &json!({"n": 1})).unwrap();
    let own = key().public().thumbprint();
    assert_eq!(open_with_key::<Value>(&text, "p+jwt", &own), Ok(json!({"n": 1})));
    let other = JwsKey::from_seed(&[8; 32]).public().thumbprint();
    assert_eq!(open_with_key::<Value>(&text, "p+jwt", &other), Err(JwsError::UnknownKey));
    assert_eq!(open::<Value>(&text, "p+jwt", &[key().public()]), Err(JwsError::Malformed));
    let named = sign(&key(), "p+jwt", &json!({"n": 1})).unwrap();
    assert_eq!(open_with_key::<Value>(&named, "p+jwt", &own), Err(JwsError::Malformed));
}

#[test]
fn private_keys_are_masked_in_debug_output() {
    assert!(format!("{:?}", key()).contains("masked"));
}

//! What the provider signs, and with what.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};

use super::{CLIENT, Code, Inner, SECRET};

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    /// RS256 with the key of now.
    Rsa,
    /// ES256 with the key of now.
    Ec,
    /// `alg: none` and no signature.
    None,
    /// HS256, with the public RSA key as the secret.
    HmacOfPublicKey,
    /// HS256, with the client's secret, as the standard allows.
    HmacOfSecret,
    /// RS256 by somebody else under the key id of now.
    Foreign,
    /// RS256, and one claim changed afterwards.
    Tampered,
    /// No ID token at all.
    Missing,
}

/// What it signs with.
pub(super) struct Keys {
    id: String,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

impl Keys {
    pub(super) fn new(id: &str) -> Self {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { id: id.to_owned(), rsa, ec }
    }

    /// The modulus: 256 bytes behind the header of the DER form, whose exponent is 65537.
    fn modulus(&self) -> String {
        let der = self.rsa.public_key().as_ref();
        assert_eq!(der.len(), 270);
        BASE64URL_NOPAD.encode(&der[9..265])
    }

    pub(super) fn jwks(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id, "n": self.modulus(), "e": "AQAB"},
            {"kty": "EC", "use": "sig", "alg": "ES256", "kid": format!("{}-ec", self.id), "crv": "P-256",
             "x": BASE64URL_NOPAD.encode(&point[1..33]), "y": BASE64URL_NOPAD.encode(&point[33..65])},
            {"kty": "future", "kid": "unknown"},
        ]})
    }

    fn rsa(&self, text: &str) -> String {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        BASE64URL_NOPAD.encode(&signature)
    }
}

impl Inner {
    pub(super) fn id_token(&self, code: &Code) -> String {
        let now = gateway_net::time::unix_secs().checked_add_signed(self.ahead).unwrap();
        let mut claims = json!({
            "iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": code.nonce,
        });
        for (name, value) in code.claims.as_object().unwrap_or(&Map::new()) {
            claims[name] = value.clone();
        }
        if let Some(claims) = claims.as_object_mut() {
            claims.retain(|_, value| !value.is_null());
        }
        let head = |alg: &str, kid: &str| part(&json!({"alg": alg, "typ": "JWT", "kid": kid}));
        let body = part(&claims);
        let id = &self.keys.id;
        let hmac = |secret: &[u8]| {
            let text = format!("{}.{body}", head("HS256", id));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
            format!("{text}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
        };
        match self.signature {
            Signature::Rsa | Signature::Missing => signed(&format!("{}.{body}", head("RS256", id)), &self.keys),
            Signature::Foreign => signed(&format!("{}.{body}", head("RS256", id)), &self.foreign),
            Signature::Ec => {
                let text = format!("{}.{body}", head("ES256", &format!("{id}-ec")));
                let signature = self.keys.ec.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
                format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
            }
            Signature::None => format!("{}.{body}.", head("none", id)),
            Signature::HmacOfPublicKey => hmac(&BASE64URL_NOPAD.decode(self.keys.modulus().as_bytes()).unwrap()),
            Signature::HmacOfSecret => hmac(SECRET.as_bytes()),
            Signature::Tampered => {
                let token = signed(&format!("{}.{body}", head("RS256", id)), &self.keys);
                let parts: Vec<_> = token.split('.').collect();
                claims["sub"] = json!("somebody else");
                format!("{}.{}.{}", parts[0], part(&claims), parts[2])
            }
        }
    }
}

fn part(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

fn signed(text: &str, keys: &Keys) -> String {
    format!("{text}.{}", keys.rsa(text))
}

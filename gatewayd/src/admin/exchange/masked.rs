//! An answer of the engine on its way to the client, with its secrets masked.

use gateway_proto::admin::{
    answer::AnswerHead,
    body::{BodyDecoder, LAST_CHUNK},
    head::Framing,
    redact::{RedactError, Redaction, Redactor},
};

use super::{super::engine::EngineReader, Call, Exchange, Stop, refusal};

impl Exchange<'_> {
    /// Leads back an answer that has a body. Its head waits for the first bytes that may pass: an answer that is not what its
    /// head says becomes a refusal that says so, and none of it passes.
    pub(super) async fn lead_back_masked(
        &mut self,
        call: &Call<'_>,
        answer: &AnswerHead,
        engine: &mut EngineReader,
        redaction: Redaction,
    ) -> Result<(), Stop> {
        let withheld = |error: RedactError| Stop::from(refusal(502, format!("gateway: {error}"), Some(&call.pass)));
        if answer.is_encoded() {
            let reason = "gateway: the engine's answer is compressed, so secrets cannot be masked in it";
            return Err(refusal(502, reason.to_owned(), Some(&call.pass)).into());
        }
        let media = answer.single("content-type").unwrap_or_default();
        let mut redactor = Redactor::new(redaction, media).map_err(withheld)?;
        let (mut decoder, mut part, mut output) = (BodyDecoder::new(answer.framing), Vec::new(), Vec::new());
        let mut begun = false;
        while engine.body(&mut decoder, &mut part).await.map_err(|error| unless(begun, error.into()))? {
            output.clear();
            redactor.update(&part, &mut output).map_err(|error| unless(begun, withheld(error)))?;
            if !begun && !output.is_empty() {
                begun = true;
                self.writer.write(&answer.for_client(Framing::Chunked, false)).await?;
            }
            self.send_part(Framing::Chunked, &output).await?;
        }
        if !begun {
            self.writer.write(&answer.for_client(Framing::Chunked, false)).await?;
        }
        output.clear();
        redactor.finish(&mut output);
        self.send_part(Framing::Chunked, &output).await?;
        Ok(self.writer.write(LAST_CHUNK).await?)
    }
}

/// Once the answer has begun, nothing but the whole of it may look like one.
fn unless(begun: bool, stop: Stop) -> Stop {
    if begun { Stop::CutOff } else { stop }
}

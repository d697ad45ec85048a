//! One request to the engine, on a kept connection where there is one, and its answer back to the client.

use gateway_proto::admin::{
    answer::{AnswerHead, MAX_ERROR_LEN, rewrite_start_file},
    body::{BodyDecoder, LAST_CHUNK, chunk},
    forward::engine_head,
    guard::BodyRule,
    head::Framing,
    operation::Method,
};

use super::{
    super::{
        engine::{EngineConnection, EngineError},
        wire::ClientError,
    },
    Call, Exchange, Stop, refusal,
    upload::{answer_to, upload},
};

/// The largest start file that is rewritten, in bytes.
const MAX_START_FILE: usize = 4 << 20;

impl Exchange<'_> {
    /// Sends a request without a body, on a new connection if the kept one has gone.
    pub(super) async fn ask_engine(&mut self, request: &[u8], method: Method) -> Result<AnswerHead, EngineError> {
        loop {
            let mut engine = self.take_engine().await?;
            let answer = async {
                engine.send(request).await?;
                engine.reader.head(method).await
            };
            match answer.await {
                Ok(answer) => {
                    self.keep_engine(engine);
                    return Ok(answer);
                }
                // The engine may have closed it while it was idle. A sign-in is not sent twice: it would count as two.
                Err(_) if engine.used && matches!(method, Method::Get | Method::Head) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn take_engine(&mut self) -> Result<EngineConnection, EngineError> {
        if let Some(mut engine) = self.engine.take()
            && engine.is_alive().await
        {
            return Ok(engine);
        }
        self.owner.engine().connect().await
    }

    fn keep_engine(&mut self, mut engine: EngineConnection) {
        engine.used = true;
        self.engine = Some(engine);
    }

    /// Asks the engine, with the client's body: `whole` if it was read before, or as it comes.
    pub(super) async fn ask(&mut self, call: &mut Call<'_>, whole: Option<&[u8]>) -> Result<AnswerHead, Stop> {
        let mut request = engine_head(call.head, &call.pass, &self.identity);
        if let Some(body) = whole {
            match call.head.framing {
                Framing::Chunked => {
                    request.extend_from_slice(&chunk(body));
                    request.extend_from_slice(LAST_CHUNK);
                }
                Framing::None | Framing::Length(_) | Framing::UntilClose => request.extend_from_slice(body),
            }
        }
        let method = call.head.method;
        if whole.is_some() || matches!(method, Method::Get | Method::Head) {
            return Ok(self.ask_engine(&request, method).await?);
        }
        let mut engine = self.take_engine().await?;
        engine.send(&request).await?;
        let EngineConnection { reader, writer, .. } = &mut engine;
        let limit = match call.pass.body {
            BodyRule::SignedIn(limit) => limit,
            BodyRule::None | BodyRule::Login | BodyRule::Filter => 0,
        };
        let answer = answer_to(upload(&mut self.reader, call, writer, limit), reader.head(method)).await?;
        self.keep_engine(engine);
        Ok(answer)
    }

    /// The engine's answer to the client, changed where it must be.
    pub(super) async fn lead_back(&mut self, call: &Call<'_>, answer: AnswerHead) -> Result<(), Stop> {
        let Some(mut engine) = self.engine.take() else { return Err(Stop::CutOff) };
        let answer = if call.pass.redaction.is_some() { answer.without_queries() } else { answer };
        let empty = matches!(answer.framing, Framing::None | Framing::Length(0));
        let good = (200..300).contains(&answer.status) && !empty;
        if call.pass.start_file && good {
            let whole = engine.reader.whole_body(answer.framing, MAX_START_FILE).await?;
            let text = whole.filter(|_| !answer.is_encoded()).and_then(|bytes| String::from_utf8(bytes).ok());
            let unreadable = || "gateway: the engine's start file is not readable".to_owned();
            let text = text.ok_or_else(|| refusal(502, unreadable(), Some(&call.pass)))?;
            let text = rewrite_start_file(&text, &call.head.host);
            self.writer.write(&answer.for_client(Framing::Length(text.len() as u64), false)).await?;
            self.writer.write(text.as_bytes()).await?;
        } else if let Some(redaction) = call.pass.redaction.filter(|_| good) {
            self.lead_back_masked(call, &answer, &mut engine.reader, redaction).await?;
        } else if let Some(redaction) = call.pass.redaction.filter(|_| !empty) {
            let error = engine.reader.whole_body(answer.framing, MAX_ERROR_LEN).await?;
            self.writer.write(&answer.masked_error(redaction, error.as_deref())).await?;
            // The rest of what is too long is still to come on this connection.
            if error.is_none() {
                return Ok(());
            }
        } else {
            let framing = match answer.framing {
                Framing::UntilClose => Framing::Chunked,
                framing @ (Framing::None | Framing::Length(_) | Framing::Chunked) => framing,
            };
            self.writer.write(&answer.for_client(framing, false)).await?;
            let (mut decoder, mut part) = (BodyDecoder::new(answer.framing), Vec::new());
            // From here on nothing but the whole answer may look like one.
            while engine.reader.body(&mut decoder, &mut part).await.map_err(|_| Stop::CutOff)? {
                self.send_part(framing, &part).await?;
            }
            if framing == Framing::Chunked {
                self.writer.write(LAST_CHUNK).await?;
            }
        }
        if !answer.close && call.body.is_done() {
            self.keep_engine(engine);
        }
        Ok(())
    }

    pub(super) async fn send_part(&mut self, framing: Framing, part: &[u8]) -> Result<(), ClientError> {
        if part.is_empty() {
            return Ok(());
        }
        match framing {
            Framing::Chunked => self.writer.write(&chunk(part)).await,
            Framing::None | Framing::Length(_) | Framing::UntilClose => self.writer.write(part).await,
        }
    }
}

//! A client's body on its way to the engine, and the engine's answer, which may come before its end.

use gateway_proto::admin::{
    answer::AnswerHead,
    body::{LAST_CHUNK, chunk},
    head::Framing,
};
use tokio::io::AsyncWriteExt;

use super::{
    super::{
        engine::EngineError,
        wire::{ClientError, ClientReader},
    },
    Call, Stop, refusal,
};

/// The answer to an upload, which may come before its end. Then, and where the engine took no more, its connection is not used
/// again: the engine would read the next request as the rest of this body, and the next body as a request that no guard has seen.
pub(super) async fn answer_to(
    upload: impl Future<Output = Result<(), Stop>>,
    answer: impl Future<Output = Result<AnswerHead, EngineError>>,
) -> Result<AnswerHead, Stop> {
    tokio::pin!(upload, answer);
    let mut early = tokio::select! {
        biased;
        uploaded = &mut upload => match uploaded {
            Ok(()) => return Ok(answer.await?),
            // It may have said why before it closed.
            Err(Stop::Engine(_)) => answer.await?,
            Err(stop) => return Err(stop),
        },
        early = &mut answer => early?,
    };
    early.close = true;
    Ok(early)
}

/// The next part of a body that is passed on; none of it is answered before its end, so that a malformed one can be refused.
async fn next_part(reader: &mut ClientReader, call: &mut Call<'_>, part: &mut Vec<u8>) -> Result<bool, Stop> {
    match reader.body(&mut call.body, part).await {
        Err(ClientError::Body(error)) => {
            Err(refusal(400, format!("refused by the gateway: {error}"), Some(&call.pass)).into())
        }
        read => Ok(read?),
    }
}

/// A body that is looked at before any of it passes, of at most `limit` bytes.
pub(super) async fn whole(reader: &mut ClientReader, call: &mut Call<'_>, limit: u64) -> Result<Vec<u8>, Stop> {
    let (mut part, mut body) = (Vec::new(), Vec::new());
    while next_part(reader, call, &mut part).await? {
        body.append(&mut part);
        if body.len() as u64 > limit {
            return Err(refusal(413, "refused by the gateway: the body is too large".into(), Some(&call.pass)).into());
        }
    }
    Ok(body)
}

/// The client's body to the engine, framed as the client framed it.
pub(super) async fn upload(
    reader: &mut ClientReader,
    call: &mut Call<'_>,
    writer: &mut (impl AsyncWriteExt + Unpin),
    limit: u64,
) -> Result<(), Stop> {
    let chunked = call.head.framing == Framing::Chunked;
    let (mut part, mut sent) = (Vec::new(), 0);
    while next_part(reader, call, &mut part).await? {
        sent += part.len() as u64;
        if sent > limit {
            return Err(refusal(413, "refused by the gateway: the body is too large".into(), Some(&call.pass)).into());
        }
        let bytes = if chunked { &chunk(&part) } else { &part };
        writer.write_all(bytes).await.map_err(EngineError::from)?;
    }
    if chunked {
        writer.write_all(LAST_CHUNK).await.map_err(EngineError::from)?;
    }
    writer.flush().await.map_err(EngineError::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use gateway_proto::admin::operation::Method;

    use super::*;

    fn answer() -> impl Future<Output = Result<AnswerHead, EngineError>> {
        let head = AnswerHead::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Method::Post);
        ready(head.map_err(EngineError::from))
    }

    #[tokio::test]
    async fn an_engine_that_answers_before_it_has_the_whole_body_gets_no_other_request_on_that_connection() {
        assert!(!answer_to(ready(Ok(())), answer()).await.unwrap().close);
        assert!(answer_to(pending(), answer()).await.unwrap().close);
        let broken = Stop::Engine(EngineError::Timeout);
        assert!(answer_to(ready(Err(broken)), answer()).await.unwrap().close);
        assert!(answer_to(ready(Err(Stop::CutOff)), answer()).await.is_err());
    }
}

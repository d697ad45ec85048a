//! What the operations do. Starting, stopping, deploying and removing act on the sockets; the rest answers what a caller
//! may learn, secrets and messages included, so that a guard has something to guard.

use tokio::sync::Mutex;

use super::{
    access::Access,
    answers::{self, SERVER_ID, VERSION},
    channels::{Channels, unix_ms},
    definition::{ChannelDefinition, ChannelState, SourceDefinition},
    document::Node,
    operations::{Operation, decoded},
};

/// A call of an operation.
#[derive(Debug)]
pub struct Call<'a> {
    /// Which.
    pub operation: &'static Operation,
    /// Values of its path parameters.
    pub parameters: Vec<String>,
    /// Raw query.
    pub query: &'a str,
    /// Body.
    pub body: &'a [u8],
    /// Who asks.
    pub user: Option<&'a str>,
}

/// What comes back.
#[derive(Debug)]
pub enum Answer {
    /// Plain text.
    Text(String),
    /// XML or JSON, as asked for.
    Document(Node),
    /// The same, something new exists.
    Created(Node),
    /// Done.
    NoContent,
    /// There is no such channel.
    NotFound,
    /// 500 with a reason.
    Failed(String),
}

/// Whether the operation answers plain text only.
pub fn is_text(operation: &Operation) -> bool {
    const TEXTS: [&str; 7] = [
        "/server/version",
        "/server/id",
        "/server/jvm",
        "/server/timezone",
        "/server/buildDate",
        "/server/_generateGUID",
        "/usageData/_generate",
    ];
    TEXTS.contains(&operation.template)
}

/// Name and value of a query or form.
pub fn form(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            // A slash is fine in a value; only path parameters have none.
            (name.to_owned(), decoded(&value.replace("%2F", "/")).unwrap_or(value))
        })
        .collect()
}

/// Performs a call.
pub async fn perform(channels: &Mutex<Channels>, access: &Access, call: Call<'_>) -> Answer {
    let mut channels = channels.lock().await;
    let (method, template) = (call.operation.method, call.operation.template);
    let first = call.parameters.first().map_or("", String::as_str);
    let values = |name: &str| -> Vec<String> {
        let pairs = form(call.query).into_iter().chain(form(std::str::from_utf8(call.body).unwrap_or_default()));
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    };
    if let Some(answer) = about_channels(&channels, method, template, first, &values) {
        return answer;
    }
    if method != "GET"
        && template.starts_with("/channels")
        && let Some(answer) = change(&mut channels, &call, first, &values("channelId")).await
    {
        return answer;
    }
    about_server(&channels, access, &call)
}

fn about_channels(
    channels: &Channels,
    method: &str,
    template: &str,
    first: &str,
    values: &dyn Fn(&str) -> Vec<String>,
) -> Option<Answer> {
    let node = match (method, template) {
        ("GET", "/channels") => answers::channels(channels, &values("channelId")),
        ("POST", "/channels/_getChannels") => answers::channels(channels, &[]),
        ("POST", "/channels/_getSummary") => answers::summaries(channels),
        ("GET", "/channels/idsAndNames") => answers::ids_and_names(channels),
        ("GET", "/channels/portsInUse") => answers::ports_in_use(channels),
        ("GET", "/channels/statuses") => {
            answers::statuses(channels, values("includeUndeployed") == ["true".to_owned()])
        }
        ("GET", "/channels/statuses/initial") => {
            Node::new("com.mirth.connect.model.DashboardChannelInfo").child(answers::statuses(channels, false))
        }
        ("GET", "/server/channelMetadata") => answers::channel_metadata(channels),
        ("GET", "/extensions/dashboardstatus/connectorStates") => answers::connector_states(channels),
        ("GET", "/channels/{channelId}") => match channels.definition.channel(first) {
            Some(stored) => answers::channel(stored),
            None => return Some(Answer::NotFound),
        },
        ("GET", "/channels/{channelId}/status") => {
            match (channels.definition.channel(first), channels.deployed(first)) {
                (Some(stored), Some(deployed)) => answers::status(stored, deployed),
                (_, _) => return Some(Answer::NotFound),
            }
        }
        ("GET", "/channels/{channelId}/statistics") => answers::statistics(first, channels.deployed(first)),
        (_, _) => return None,
    };
    Some(Answer::Document(node))
}

async fn change(channels: &mut Channels, call: &Call<'_>, first: &str, named: &[String]) -> Option<Answer> {
    let (method, template) = (call.operation.method, call.operation.template);
    let text = std::str::from_utf8(call.body).unwrap_or_default();
    let one = [first.to_owned()];
    let ids = if template.contains("{channelId}") { &one[..] } else { named };
    let in_set: Vec<String> = elements(text, "string");
    let last = template.rsplit('/').next().unwrap_or_default();
    let result = match (method, last) {
        ("POST", "_start" | "_resume") => set_states(channels, ids, ChannelState::Started).await,
        ("POST", "_stop" | "_halt") => set_states(channels, ids, ChannelState::Stopped).await,
        ("POST", "_pause") => set_states(channels, ids, ChannelState::Paused).await,
        ("POST", "_deploy" | "_undeploy" | "_redeployAll") => {
            let all: Vec<String> = channels.definition.channels.iter().map(|channel| channel.id.clone()).collect();
            let ids = if last == "_redeployAll" || (ids.is_empty() && in_set.is_empty()) {
                all
            } else {
                [ids, &in_set].concat()
            };
            deploy(channels, &ids, last != "_undeploy").await
        }
        ("DELETE", "channels" | "{channelId}") | ("POST", "_removeChannels") => {
            let mut result = Ok(());
            for id in ids.iter().chain(&in_set) {
                result = result.and(channels.remove(id).await);
            }
            result
        }
        ("POST", "messages") => {
            return Some(match channels.process(first, call.body) {
                Ok(id) => Answer::Created(Node::text("long", id)),
                Err(error) => Answer::Failed(error.to_string()),
            });
        }
        ("POST", "channels") | ("PUT", "{channelId}") => {
            let stored = store(channels, text);
            return Some(match stored {
                Ok(()) => Answer::Document(Node::text("boolean", true)),
                Err(error) => Answer::Failed(error.to_string()),
            });
        }
        (_, _) => return None,
    };
    Some(match result {
        Ok(()) => Answer::NoContent,
        Err(error) => Answer::Failed(format!("{error:#}")),
    })
}

async fn set_states(channels: &mut Channels, ids: &[String], state: ChannelState) -> anyhow::Result<()> {
    for id in ids {
        channels.set_state(id, state).await?;
    }
    Ok(())
}

async fn deploy(channels: &mut Channels, ids: &[String], is_deploy: bool) -> anyhow::Result<()> {
    for id in ids {
        if is_deploy {
            channels.deploy(id).await?;
        } else {
            channels.undeploy(id).await?;
        }
    }
    Ok(())
}

/// Takes id, name, port and transport from a channel in XML; what else a known channel has stays.
fn store(channels: &mut Channels, xml: &str) -> anyhow::Result<()> {
    let first = |name: &str| elements(xml, name).into_iter().next().unwrap_or_default();
    let id = first("id");
    anyhow::ensure!(!id.is_empty(), "the channel has no id");
    let fresh = || ChannelDefinition {
        deployed: false,
        ..ChannelDefinition::with_source(&id, "", SourceDefinition::of("", ""))
    };
    let mut channel = channels.definition.channel(&id).cloned().unwrap_or_else(fresh);
    channel.name = first("name");
    channel.source.port = first("port");
    channel.source.transport = first("transportName");
    channels.store(channel)
}

/// The texts of the elements of a name, in order.
fn elements(xml: &str, name: &str) -> Vec<String> {
    let open = format!("<{name}>");
    let parts = xml.split(&open).skip(1);
    parts.filter_map(|part| part.split("</").next()).map(|text| text.replace("&amp;", "&")).collect()
}

fn about_server(channels: &Channels, access: &Access, call: &Call<'_>) -> Answer {
    let secret = |name: &str| Node::new(name).field("password", "secret-in-clear");
    let node = match call.operation.template {
        "/server/version" => return Answer::Text(VERSION.into()),
        "/server/id" | "/server/_generateGUID" => return Answer::Text(SERVER_ID.into()),
        "/server/timezone" => return Answer::Text("UTC".into()),
        template if is_text(call.operation) => return Answer::Text(template.into()),
        "/server/status" => Node::text("int", 0),
        "/server/time" => Node::new("calendar").field("time", unix_ms()).field("timezone", "Etc/UTC"),
        "/server/charsets" => Node::new("list").field("string", "UTF-8").field("string", "ISO-8859-1"),
        "/server/encryption" => Node::new("com.mirth.connect.model.EncryptionSettings")
            .field("encryptExport", false)
            .field("encryptionAlgorithm", "AES/CBC/PKCS5Padding")
            .field("encryptionKeyLength", 128)
            .field("secretKey", "c2VjcmV0LWtleS1pbi1jbGVhcg=="),
        "/server/configuration" => {
            secret("serverConfiguration").child(Node::new("channels").child(answers::channels(channels, &[])))
        }
        "/server/configurationMap" => {
            Node::new("map").children(channels.definition.configuration_map.iter().map(|(key, value)| {
                let property = Node::new("com.mirth.connect.util.ConfigurationProperty").field("value", value);
                Node::new("entry").field("string", key).child(property)
            }))
        }
        "/system/info" => Node::new("com.mirth.connect.model.SystemInfo")
            .field("jvmVersion", "17.0.13")
            .field("osName", "Linux")
            .field("dbName", "Apache Derby"),
        "/system/stats" => Node::new("com.mirth.connect.model.SystemStats")
            .field("cpuUsagePct", 0.01)
            .field("allocatedMemoryBytes", 268_435_456)
            .field("diskFreeBytes", 1_000_000_000),
        "/users/current" => user(1, call.user.unwrap_or_default()),
        "/users" if call.operation.method == "GET" => {
            Node::new("list").children(access.users().iter().enumerate().map(|(at, name)| user(at + 1, name)))
        }
        "/extensions/{extensionName}/enabled" => Node::text("boolean", true),
        "/events" => Node::new("list").children(access.executed().iter().enumerate().map(|(at, executed)| {
            Node::new("event")
                .field("id", at + 1)
                .field("name", &executed.template)
                .field("outcome", if executed.status < 400 { "SUCCESS" } else { "FAILURE" })
                .field("userId", 1)
                .field("ipAddress", &executed.address)
        })),
        _ => match call.operation.class {
            "R!" => secret("map"),
            "R#" => Node::new("message").field("content", "patient-data-in-clear"),
            "P" => Node::new("com.mirth.connect.util.ConnectionTestResponse").field("type", "SUCCESS"),
            "A" | "W" => return Answer::NoContent,
            _ => Node::new("list"),
        },
    };
    Answer::Document(node)
}

fn user(id: usize, name: &str) -> Node {
    Node::new("user").field("id", id).field("username", name).field("strikeCount", 0).field("userConsent", false)
}

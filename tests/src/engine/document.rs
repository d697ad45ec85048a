//! What the engine answers: one tree, written as XML or as its JSON.
//!
//! The JSON is as lossy as the engine's: text that looks like a number or a truth value becomes
//! one, a list of one element becomes the element, an empty element becomes `null`.

use serde_json::{Map, Value};

/// An element with attributes and either text or children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    name: String,
    attributes: Vec<(&'static str, String)>,
    text: String,
    children: Vec<Self>,
}

impl Node {
    /// An element without content.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), attributes: Vec::new(), text: String::new(), children: Vec::new() }
    }

    /// An element with a text.
    pub fn text(name: impl Into<String>, text: impl ToString) -> Self {
        Self { text: text.to_string(), ..Self::new(name) }
    }

    /// The same with an attribute.
    pub fn attribute(mut self, name: &'static str, value: impl ToString) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// The same with one more child.
    pub fn child(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    /// The same with one more child that is a text.
    pub fn field(self, name: &str, text: impl ToString) -> Self {
        self.child(Self::text(name, text))
    }

    /// The same with more children.
    pub fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    /// As XML.
    pub fn to_xml(&self) -> String {
        let mut out = String::new();
        self.write_xml(&mut out);
        out
    }

    /// As the engine's JSON.
    pub fn to_json(&self) -> Value {
        Value::Object(Map::from_iter([(self.name.clone(), self.value())]))
    }

    fn write_xml(&self, out: &mut String) {
        out.push('<');
        out.push_str(&self.name);
        for (name, value) in &self.attributes {
            out.push_str(&format!(" {name}=\"{}\"", escaped(value)));
        }
        if self.text.is_empty() && self.children.is_empty() {
            return out.push_str("/>");
        }
        out.push('>');
        out.push_str(&escaped(&self.text));
        self.children.iter().for_each(|child| child.write_xml(out));
        out.push_str(&format!("</{}>", self.name));
    }

    fn value(&self) -> Value {
        if self.children.is_empty() && self.attributes.is_empty() {
            return scalar(&self.text);
        }
        let mut object = Map::new();
        for (name, value) in &self.attributes {
            object.insert(format!("@{name}"), scalar(value));
        }
        if !self.text.is_empty() {
            object.insert("$".into(), scalar(&self.text));
        }
        for child in &self.children {
            let value = child.value();
            match object.get_mut(&child.name) {
                None => {
                    object.insert(child.name.clone(), value);
                }
                Some(Value::Array(list)) => list.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        Value::Object(object)
    }
}

/// Everything that looks like a number becomes one, leading zeros and exponents included.
fn scalar(text: &str) -> Value {
    match text {
        "" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => {
            let looks_like_one = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            let number = if let Ok(whole) = text.parse::<i64>() {
                Some(whole.into())
            } else if looks_like_one {
                text.parse().ok().and_then(serde_json::Number::from_f64)
            } else {
                None
            };
            number.map_or_else(|| Value::String(text.into()), Value::Number)
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_json_is_as_lossy_as_the_engine_s() {
        let port = |port: &str| Node::new("Ports").field("name", "IN").field("port", port);
        assert_eq!(Node::new("list").to_json(), json!({ "list": null }));
        let one = Node::new("list").child(port("6661"));
        assert_eq!(one.to_json(), json!({ "list": { "Ports": { "name": "IN", "port": 6661 } } }));
        let two = one.child(port("${adt}"));
        assert_eq!(two.to_json()["list"]["Ports"][1]["port"], "${adt}");
        assert_eq!(Node::text("name", "0015").to_json(), json!({ "name": 15 }));
        assert_eq!(Node::text("name", "1E3").to_json(), json!({ "name": 1000.0 }));
        assert_eq!(Node::text("name", "0B").to_json(), json!({ "name": "0B" }));
        assert_eq!(
            Node::new("map").attribute("class", "linked-hash-map").to_json(),
            json!({ "map": { "@class": "linked-hash-map" } })
        );
    }

    #[test]
    fn the_xml_keeps_every_text() {
        let node = Node::new("a").attribute("version", "4.5.2").field("b", "0015 & <c>").child(Node::new("d"));
        assert_eq!(node.to_xml(), "<a version=\"4.5.2\"><b>0015 &amp; &lt;c&gt;</b><d/></a>");
    }
}

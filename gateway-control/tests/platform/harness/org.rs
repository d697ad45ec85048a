//! Organizations and their users, who ask the control plane.

use gateway_proto::api::{
    Page, Problem,
    gateway::{EnrollAnswer, EnrollmentCode},
    platform::{Agreement, Channel, Connection, CreatedEnrollmentCode, Grant, PeeringRequest, Server, Session},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Control, Gateway, OWNER_PASSWORD, Watch, wait::found};

/// The password of each user who is no owner.
pub(crate) const PASSWORD: &str = "another long password";

pub(crate) struct Org<'a> {
    pub(crate) control: &'a Control,
    pub(crate) token: String,
    pub(crate) id: String,
    pub(crate) session: Session,
}

impl<'a> Org<'a> {
    /// Whoever has just signed in.
    pub(super) fn of(control: &'a Control, session: Session) -> Self {
        Self { control, token: session.token.0.clone(), id: session.organization.id.to_string(), session }
    }

    /// The owner signed in again: sessions end when the clock is moved by days.
    pub(crate) async fn sign_in(&self) -> Org<'_> {
        self.control.sign_in(&self.session.user.email, OWNER_PASSWORD).await
    }

    /// The same user once more, who does not depend on whoever made it.
    pub(crate) fn detached<'c>(&self, control: &'c Control) -> Org<'c> {
        Org { control, token: self.token.clone(), id: self.id.clone(), session: self.session.clone() }
    }

    /// The same user once more.
    pub(crate) fn again(&self) -> Org<'_> {
        Org { control: self.control, token: self.token.clone(), id: self.id.clone(), session: self.session.clone() }
    }

    /// The same user, asking another replica.
    pub(crate) fn at<'b>(&self, control: &'b Control) -> Org<'b> {
        Org { control, token: self.token.clone(), id: self.id.clone(), session: self.session.clone() }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> reqwest::Response {
        let mut request = self.control.request(method, &format!("/api/v1{path}")).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.send("GET", path, None).await;
        assert_eq!(answer.status(), 200, "GET {path}: {:?}", answer.text().await);
        answer.json().await.unwrap()
    }

    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> Vec<T> {
        self.get::<Page<T>>(path).await.items
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> T {
        let answer = self.send("POST", path, Some(body)).await;
        assert!(answer.status().is_success(), "POST {path}: {:?}", answer.text().await);
        answer.json().await.unwrap()
    }

    /// A request that must be refused.
    pub(crate) async fn refused(&self, method: &str, path: &str, body: Option<Value>) -> Problem {
        let answer = self.send(method, path, body).await;
        let status = answer.status();
        assert!(status.is_client_error(), "{method} {path} was answered with {status}");
        answer.json().await.unwrap()
    }

    /// Another user of the organization, signed in.
    pub(crate) async fn user(&self, role: &str) -> Org<'_> {
        self.person(role, role).await
    }

    /// Another user of the organization with a name of its own, signed in.
    pub(crate) async fn person(&self, role: &str, name: &str) -> Org<'_> {
        let at = |text: &str| text.to_lowercase().replace(' ', "-");
        let email = format!("{}@{}.example", at(name), at(&self.session.organization.name));
        let body = json!({"email": email, "name": name, "role": role, "password": PASSWORD});
        let _: Value = self.post("/users", body).await;
        self.control.sign_in(&email, PASSWORD).await
    }

    pub(crate) async fn server(&self, name: &str) -> Server {
        self.post("/servers", json!({"name": name})).await
    }

    pub(crate) async fn code(&self, server: &Server) -> EnrollmentCode {
        let path = format!("/servers/{}/enrollment-codes", server.id);
        let created: CreatedEnrollmentCode = self.post(&path, json!({})).await;
        created.code.0.parse().unwrap()
    }

    pub(crate) async fn enroll(&self, server: &Server, gateway: &Gateway) -> EnrollAnswer {
        let code = self.code(server).await;
        gateway.enroll(self.control, &code.secret).await.unwrap()
    }

    pub(crate) async fn channel(&self, server: &Server, name: &str) -> Channel {
        let body = json!({
            "server_id": server.id, "name": format!("internal {name}"), "engine": "127.0.0.1:6661",
            "public_name": name, "public_description": "for partners",
        });
        self.post("/channels", body).await
    }

    pub(crate) async fn agree_with(&self, other: &Org<'_>) -> String {
        let request: PeeringRequest = self.post("/peering-requests", json!({"organization_id": other.id})).await;
        let request: PeeringRequest = other.post(&format!("/peering-requests/{}/accept", request.id), json!({})).await;
        request.agreement_id.unwrap().to_string()
    }

    pub(crate) async fn connection(&self, id: &str) -> Connection {
        self.get(&format!("/connections/{id}")).await
    }

    pub(crate) async fn agreement(&self, id: &str) -> Agreement {
        self.get(&format!("/agreements/{id}")).await
    }

    /// Waits until a connection is as told.
    pub(crate) async fn until(&self, id: &str, what: &str, is: impl Fn(&Connection) -> bool) -> Connection {
        let look = async || {
            let connection = self.connection(id).await;
            is(&connection).then_some(connection)
        };
        found(&format!("the connection never became {what}"), look).await
    }
}

/// Two organizations with an enrolled server each and an agreement.
pub(crate) struct Pair<'a> {
    pub(crate) hospital: Org<'a>,
    pub(crate) lab: Org<'a>,
    pub(crate) hospital_server: Server,
    pub(crate) lab_server: Server,
    pub(crate) hospital_gateway: Gateway,
    pub(crate) lab_gateway: Gateway,
    pub(crate) agreement: String,
}

impl Pair<'_> {
    /// The watches of both gateways: the hospital's, the lab's.
    pub(crate) async fn watches(&self) -> (Watch, Watch) {
        let control = self.hospital.control;
        (self.hospital_gateway.watch(control).await, self.lab_gateway.watch(control).await)
    }

    /// The lab's channel granted to the hospital: messages go from hospital to lab.
    pub(crate) async fn connection(&self, name: &str) -> String {
        let channel = self.lab.channel(&self.lab_server, name).await;
        let offer = json!({"agreement_id": self.agreement, "channel_id": channel.id});
        let grant: Grant = self.lab.post("/grants", offer).await;
        let grant: Grant = self.hospital.post(&format!("/grants/{}/approve", grant.id), json!({})).await;
        grant.connection_id.unwrap().to_string()
    }
}

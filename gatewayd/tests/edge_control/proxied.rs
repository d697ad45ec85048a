//! Enrolment, link and relay through a proxy.

use std::sync::Arc;

use gateway_proto::{id::RelayId, policy::RelayEntry};
use gatewayd::{
    authority::Authority,
    control_client::{EnrollError, enroll},
    path_actor::SessionIndex,
    peer::Links,
    relay_inbound::RelayInbox,
    relay_link::{LinkContext, link},
    routes::Routes,
    socket::TunnelSocket,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{Gateway, open, proxy::StandInProxy, stand_in::StandIn, within};

/// A control plane that can be reached through a proxy only, under a name that only the proxy knows.
async fn behind_a_proxy() -> (tempfile::TempDir, StandIn, StandInProxy, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let mut control = StandIn::start();
    let proxy = StandInProxy::start(control.code.control.strip_prefix("https://").unwrap().parse().unwrap()).await;
    control.code.control = "https://control.invalid".into();
    let authority = open(directory.path());
    (directory, control, proxy, authority)
}

#[tokio::test]
async fn enrolment_and_link_go_through_the_proxy_and_the_status_names_it_without_the_password() {
    let (_directory, mut control, mut stand_in, authority) = behind_a_proxy().await;
    let proxy = stand_in.proxy("gateway:sesame@");
    enroll(&control.code.to_string(), &authority, Some(&proxy)).await.unwrap();
    assert_eq!(stand_in.asked().await, "control.invalid:443");
    let mut gateway = Gateway::start_through(authority, Some(proxy.clone()));
    assert_eq!(control.heard_hello().await, 1);
    gateway.status(|status| status.connected).await;
    assert_eq!(gateway.status.borrow().proxy, Some(proxy.to_string()));
    assert!(!format!("{:?}", gateway.status).contains("sesame"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_start_waits_for_no_control_plane_whose_name_does_not_resolve() {
    let (_directory, control, stand_in, authority) = behind_a_proxy().await;
    enroll(&control.code.to_string(), &authority, Some(&stand_in.proxy("gateway:sesame@"))).await.unwrap();
    authority.ask_first();
    // Without the proxy nobody knows the name.
    let mut gateway = Gateway::start(authority);
    gateway.status(|status| status.problem.as_ref().is_some_and(|problem| problem.contains("resolve"))).await;
    assert!(gateway.authority.view().takes_part());
}

#[tokio::test]
async fn a_wrong_password_for_the_proxy_is_told_as_such_by_enrolment_and_link() {
    let (_directory, control, stand_in, authority) = behind_a_proxy().await;
    let wrong = stand_in.proxy("gateway:wrong@");
    let error = enroll(&control.code.to_string(), &authority, Some(&wrong)).await.unwrap_err();
    assert!(matches!(&error, EnrollError::Proxy { proxy, .. } if *proxy == wrong.to_string()), "{error:?}");
    enroll(&control.code.to_string(), &authority, Some(&stand_in.proxy("gateway:sesame@"))).await.unwrap();
    let mut gateway = Gateway::start_through(authority, Some(wrong));
    let words = "wrong or missing user and password for the proxy";
    gateway.status(|status| status.problem.as_ref().is_some_and(|problem| problem.contains(words))).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_relay_link_asks_the_proxy_and_names_it_as_the_hop_that_refused() {
    let (_directory, control, mut stand_in, authority) = behind_a_proxy().await;
    let proxy = stand_in.proxy("gateway:sesame@");
    enroll(&control.code.to_string(), &authority, Some(&proxy)).await.unwrap();
    assert_eq!(stand_in.asked().await, "control.invalid:443");
    let any = "127.0.0.1:0".parse().unwrap();
    let (socket, _packets) =
        TunnelSocket::bind([any].into_iter(), Arc::new(Routes::default()), SessionIndex::default()).unwrap();
    let context = LinkContext {
        authority,
        proxy: Some(proxy.clone()),
        socket: socket.clone(),
        injector: socket.injector(),
        inbound: RelayInbox::new(socket.counters().clone()).0,
        changes: watch::Sender::new(0),
        links: watch::channel(Links::default()).1,
        network: watch::channel(0).1,
    };
    let relay = RelayEntry {
        id: RelayId::new(1, [1; 10]),
        url: "wss://relay.invalid:8443/relay".into(),
        tls_pin: None,
        stun: vec![],
        region: None,
    };
    let map = watch::Sender::new(relay);
    let (handle, running) = link(map.subscribe(), context, CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(running);
    assert_eq!(within(stand_in.asked()).await, "relay.invalid:8443");
    let mut state = handle.state();
    let state = within(state.wait_for(|state| state.problem.is_some())).await.unwrap();
    let expected = format!("the proxy '{proxy}' refused a tunnel to 'relay.invalid:8443' with HTTP status 403");
    assert!(state.problem.as_ref().unwrap().contains(&expected), "{:?}", state.problem);
    drop(state);
    // The map has it elsewhere: it is looked for there, by the same link.
    map.send_modify(|relay| relay.url = "wss://moved.invalid:8443/relay".into());
    within(async { while stand_in.asked().await != "moved.invalid:8443" {} }).await;
}

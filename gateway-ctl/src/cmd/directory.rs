//! `gateway-ctl directory`: the organizations that chose to be found.

use clap::Subcommand;
use gateway_proto::{
    api::{
        platform::{self, DirectoryEntry},
        values::SELF,
    },
    id::OrganizationId,
    names::fold,
};

use crate::{
    client::{ClientError, Control},
    cmd::Context,
    error::CtlError,
    output::View,
    resolve::{self, Named},
};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Directory {
    /// Search by name and description; without a text, list all.
    Search {
        /// Part of the name or description.
        #[arg(default_value = "", hide_default_value = true)]
        text: String,
    },
    /// Show one.
    Show {
        /// Name or id; `self`.
        organization: String,
    },
}

impl Directory {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let control = context.control()?;
        match self {
            Self::Search { text } => {
                let entries = search(&control, &text).await?;
                context.out.list(&entries)
            }
            Self::Show { organization } => {
                let id = organization_id(&control, &organization).await?;
                let entry: DirectoryEntry = control.get(&path(id)).await?;
                context.out.item(&entry)
            }
        }
    }
}

/// The organization that `wanted` names: an id, `self`, the own name, or a name of the directory. Names are compared as the platform
/// compares them, here as in `apply`.
pub(crate) async fn organization_id(control: &Control, wanted: &str) -> Result<OrganizationId, CtlError> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    // The own organization is always known, discoverable or not.
    let own: platform::Organization = control.get("/organization").await?;
    let key = fold(wanted);
    if key == SELF || fold(&own.name) == key {
        return Ok(own.id);
    }
    let entries = search(control, wanted).await?;
    Ok(resolve::pick(wanted, &entries, |_| true)?.id)
}

/// What the directory has of a text.
pub(crate) async fn search(control: &Control, text: &str) -> Result<Vec<DirectoryEntry>, CtlError> {
    Ok(control.list("/directory", &[("search", text)], None).await?)
}

/// The one with this id, if it is to be found.
pub(crate) async fn entry(control: &Control, id: OrganizationId) -> Result<Option<DirectoryEntry>, CtlError> {
    match control.get(&path(id)).await {
        Ok(entry) => Ok(Some(entry)),
        Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn path(id: OrganizationId) -> String {
    format!("/directory/{id}")
}

impl Named for DirectoryEntry {
    type Id = OrganizationId;
    const KIND: &'static str = "discoverable organization";
    const LIST: &'static str = "directory search";

    fn id(&self) -> OrganizationId {
        self.id
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn describe(&self) -> String {
        format!("{}: {}", self.name, self.description)
    }
}

impl View for DirectoryEntry {
    const HEADERS: &'static [&'static str] = &["NAME", "RELATION", "DESCRIPTION", "ID"];

    fn row(&self, _now: u64) -> Vec<String> {
        vec![self.name.clone(), self.relation.clone(), self.description.clone(), self.id.to_string()]
    }

    fn block(&self, _now: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Id", self.id.to_string()),
            ("Name", self.name.clone()),
            ("Description", self.description.clone()),
            ("Relation", self.relation.clone()),
        ]
    }
}

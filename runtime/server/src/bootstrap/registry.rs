//! The schema registry of the settings, as the adapter wants it.
//!
//! Reads the files that the settings name, and connects to nobody. Used by `bootstrap`.

use std::sync::Arc;

use anyhow::anyhow;
use motet_config::Settings;
use motet_schemas::RegistryDecoder;
use motet_schemas::port::RecordDecoder;
use motet_schemas::registry::{ConfluentRegistry, RegistrySettings};

use super::kafka::pem;

/// What decodes records by the registry's schemas; none where no registry is set.
pub(super) fn decoder(settings: &Settings) -> anyhow::Result<Option<Arc<dyn RecordDecoder>>> {
    let registry = &settings.registry;
    if !registry.is_set() {
        return Ok(None);
    }
    let password = registry.password().map_err(|why| anyhow!("registry.password_file: {why}"))?;
    let registry = ConfluentRegistry::new(RegistrySettings {
        url: registry.url.clone(),
        user: (!registry.user.is_empty()).then(|| registry.user.clone()),
        password: password.map(|password| password.expose().to_owned()),
        authority: pem("registry.authority", registry.authority.as_deref())?,
    })?;
    Ok(Some(Arc::new(RegistryDecoder::new(Arc::new(registry)))))
}

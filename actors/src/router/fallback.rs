//! A model that cannot answer is stood in for by its fallback.
//!
//! Never when the call itself is wrong: that would be as wrong elsewhere. Used by the router.

use std::time::{Duration, Instant};

use motet_engine::access::Caller;
use motet_engine::failure::FailureClass;
use motet_engine::id::{Name, Namespace};

use super::Router;
use crate::address::Address;
use crate::message::{Answer, Ask, ModelAsk, RouteError};

/// Models that may be asked for one call.
const CHAIN: usize = 4;

impl Router {
    /// Asks a model, and while one cannot answer its fallback, with what is left of the time.
    pub(super) async fn ask_models(
        &self,
        caller: &Caller,
        namespace: &Namespace,
        name: &Name,
        ask: ModelAsk,
        patience: Duration,
    ) -> Result<Answer, RouteError> {
        let deadline = Instant::now() + patience;
        let mut asked = vec![name.clone()];
        loop {
            let Some(name) = asked.last() else { return Err(RouteError::Expired) };
            let to = Address::Model(namespace.clone(), name.clone());
            let left = deadline.saturating_duration_since(Instant::now());
            // Whoever does not exist is told by whom is asked.
            let definition = self.catalog.known_model(namespace, name).await.ok();
            let fallback = definition.as_ref().and_then(|definition| definition.serving.fallback.clone());
            let fallback = fallback.filter(|fallback| asked.len() < CHAIN && !asked.contains(fallback));
            let Some((definition, fallback)) = definition.zip(fallback) else {
                return self.ask_one(caller, &to, Ask::Model(ask), left).await;
            };
            // The model's own time is what the definition gives it; the rest is for the fallback.
            let answered = self.ask_one(caller, &to, Ask::Model(ask.clone()), left.min(definition.timeout)).await;
            match answered {
                Err(error) if deadline > Instant::now() && is_of_model(&error) => {
                    let (model, to) = (name.to_string(), fallback.to_string());
                    tracing::debug!(model, to, %error, "a model cannot answer: its fallback is asked");
                    metrics::counter!("motet_model_fallbacks_total", "model" => model, "to" => to).increment(1);
                    asked.push(fallback);
                }
                answered => return answered,
            }
        }
    }
}

/// Whether another model may have an answer where this one has none.
fn is_of_model(error: &RouteError) -> bool {
    use FailureClass::{Crashed, Internal, Overloaded, RateLimited, Timeout, Unavailable};
    match error {
        RouteError::Failed(failure) | RouteError::Absent(failure) => {
            matches!(failure.class, Unavailable | Timeout | RateLimited | Overloaded | Internal | Crashed)
        }
        RouteError::Overloaded(_) | RouteError::Expired | RouteError::NotOwner | RouteError::Moved(_) => true,
        RouteError::Undecodable(_) | RouteError::Unknown(_) => false,
    }
}

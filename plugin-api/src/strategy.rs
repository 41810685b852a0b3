//! Strategies: *what* of a model trains, and what is added to it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::{Error, Event, Model, PeftConfig, Result, SavedState, Tensor};

/// A way to adapt a model: it freezes and thaws, declares parameters and hooks sites.
///
/// The host creates one instance per `[[strategy]]` table of the run file, in order, and calls [`attach`](Self::attach)
/// once before the first step. Hooks that `attach` installs run in every forward pass from then on.
///
/// All calls come on the run's thread, one at a time.
pub trait Strategy: Sized + Send + 'static {
    /// The options of the `[[strategy]]` table. Derive `Deserialize`, `JsonSchema` and `Default`, with
    /// `#[serde(deny_unknown_fields, default)]`; the doc comments become the options' help.
    type Config: DeserializeOwned + schemars::JsonSchema;

    /// The `peft_type` of the folders that PEFT saves and this strategy opens, `LORA`, by
    /// [`options_from_peft`](Self::options_from_peft). It stands in the plugin's note, so that a host finds the plugin for a folder.
    const PEFT_TYPE: Option<&'static str> = None;

    /// The options, as JSON, under which [`attach`](Self::attach) declares the parameters that a folder of PEFT holds, by PEFT's
    /// names, and computes what PEFT does with them. The reverse of [`adapter_config`](Self::adapter_config). A field of `config`
    /// that is left and says something is refused by name.
    fn options_from_peft(config: &mut PeftConfig) -> Result<serde_json::Value> {
        let _ = config;
        Err(Error::new("this strategy opens no folder of PEFT"))
    }

    /// Makes an instance from checked options. Refuse here what a schema cannot say.
    fn new(config: Self::Config) -> Result<Self>;

    /// Declares what trains and hooks the sites. `[run thread]`, once, before the first step.
    ///
    /// A site that a hook does not start as the identity changes the model from step 0; say so in the plugin's README.
    fn attach(&mut self, model: &mut Model) -> Result<()>;

    /// Whether the model, once this strategy has attached, still computes exactly what the base model does. The host then
    /// compares the two to the bit before the first step, and a difference is an error.
    fn starts_at_base(&self) -> bool {
        false
    }

    /// Reacts to the run: progressive unfreezing thaws here. `[run thread]`, between steps.
    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        let _ = (event, model);
        Ok(())
    }

    /// The fields of PEFT's `adapter_config.json` (`peft_type`, `r`, ...), where PEFT knows the method. The host adds what
    /// it knows itself (base model, task type), and puts the architecture's prefix before keys of a table that name something beside a site
    /// ([`Param::name`](crate::Param::name)). `None`: the adapter is saved in fthost's own form only.
    fn adapter_config(&self) -> Result<Option<serde_json::Value>> {
        Ok(None)
    }

    /// The tensors of PEFT's `adapter_model.safetensors`, by whole names, where they are not the parameters themselves: of a
    /// projected prefix PEFT keeps what the projection gives. One under a parameter's own name ([`Param::name`](crate::Param::name)) stands
    /// where the parameter would. Used only where `adapter_config` says that PEFT knows the method. `None`: every parameter as it is, one beside a site under `base_model.model.`, the architecture's prefix and its name,
    /// one of no site under its name alone.
    fn adapter_tensors(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        Ok(None)
    }

    /// State beyond declared parameters that a resumed run needs. Parameters, which of them train and at which factors are saved
    /// by the host.
    fn save(&self) -> Result<SavedState> {
        Ok(SavedState::default())
    }

    /// Takes back what [`save`](Self::save) gave. Called after `attach`.
    fn load(&mut self, state: SavedState) -> Result<()> {
        let _ = state;
        Ok(())
    }
}

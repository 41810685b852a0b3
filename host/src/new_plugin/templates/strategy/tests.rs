//! What the method promises, on a host in memory: a toy transformer, with all ops and their gradients.

use fthost_plugin_api::test::Host;

use super::*;

#[test]
fn what_holds_for_every_strategy_holds_for_this_one() -> Result<()> {
    for options in [json!({}), json!({ "targets": "encoder.*", "shift": false })] {
        let mut run = Host::new().strategy::<ScaleAndShift>(options)?;
        assert!(run.starts_at_base()?); // to the bit
        run.check_gradients()?; // by finite differences, through the whole model
        run.check_merge()?; // hooked layers equal merged ones
        run.check_threads()?; // hooks give the same on several threads at once
        let losses = run.train(2, 3)?;
        assert!(losses.last() < losses.first(), "{losses:?}");
        run.check_state()?; // saved, loaded and saved again: the same
        run.finish()?;
    }
    Ok(())
}

#[test]
fn one_scale_and_one_shift_for_each_layer_train() -> Result<()> {
    let run = Host::new().strategy::<ScaleAndShift>(json!({ "targets": ["query"] }))?;
    let names = run.trainable();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(
        names.iter().all(|name| name.contains("query.ssf_")),
        "{names:?}"
    );
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let wrong = [
        json!({ "targets": [] }),
        json!({ "targets": ["no_such_layer"] }),
        json!({ "shift": 1 }),
    ];
    for options in wrong {
        let made = Host::new().strategy::<ScaleAndShift>(options.clone());
        assert!(made.is_err(), "{options}");
    }
}

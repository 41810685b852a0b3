//! What the method promises, on a host in memory: a toy transformer, with all ops and their gradients.
use fthost_plugin_api::test::Host;

use super::*;

#[test]
fn what_holds_for_every_head_holds_for_this_one() -> Result<()> {
    for options in [
        json!({}),
        json!({ "temperature": 0.5, "label_smoothing": 0.1 }),
    ] {
        let mut run = Host::new().head::<Angles>(options)?;
        run.check_loss()?; // a sum and a weight, whose gradients are those of finite differences
        run.check_predictions()?; // probabilities that add up to 1
        let losses = run.train(2, 3)?;
        assert!(losses.last() < losses.first(), "{losses:?}");
        run.check_state()?; // saved, loaded and saved again: the same
    }
    Ok(())
}

#[test]
fn how_long_features_are_does_not_count() -> Result<()> {
    Host::new().call(|_model| {
        let rows = Tensor::from_slice(&[3.0, 4.0, 0.0, 0.0], [2, 2])?;
        let (own, longer) = (directions(&rows)?, directions(&rows.mul_scalar(7.0)?)?);
        let lengths: Vec<f64> = own.norm_dim(-1, false)?.to_vec_f64()?;
        assert!(
            (lengths[0] - 1.0).abs() < 1e-6 && lengths[1] == 0.0,
            "{lengths:?}"
        );
        let difference = own.sub(&longer)?.abs()?.sum()?.to_scalar()?;
        assert!(difference < 1e-6, "{difference}");
        Ok(())
    })
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for options in [json!({ "temperature": 0 }), json!({ "label_smoothing": 1 })] {
        assert!(
            Host::new().head::<Angles>(options.clone()).is_err(),
            "{options}"
        );
    }
}

//! The two macros by which code names a failpoint; see `failpoints`.

/// A place between two effects. The second argument names the subscription or log it belongs to, if any; the
/// last is what the function returns when the place is to fail.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! crash_point {
    ($point:literal, $of:expr) => {
        // Nothing can fail here: an error that is asked for changes nothing.
        let _ = $crate::failpoints::reach($point, $of).await;
    };
    ($point:literal, $of:expr, $error:expr) => {
        if $crate::failpoints::reach($point, $of).await {
            return $error;
        }
    };
}

/// A place between two effects: nothing, without the feature. The arguments are compiled all the same, so that
/// they are right in both builds.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! crash_point {
    ($point:literal, $of:expr) => {
        if false {
            let _: (&str, &str) = ($point, $of);
        }
    };
    ($point:literal, $of:expr, $error:expr) => {
        if false {
            let _: (&str, &str) = ($point, $of);
            return $error;
        }
    };
}

/// Whether a defect is planted.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! planted {
    ($defect:literal) => {
        $crate::failpoints::is_planted($defect)
    };
}

/// Whether a defect is planted: never, without the feature.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! planted {
    ($defect:literal) => {
        false
    };
}

//! What wit-bindgen makes of `wit/`, and nothing else.
//!
//! One small world for each exported interface instead of the published ones, so that a plugin can export any set
//! of them: `wit-component` joins the worlds it finds in a module. Imports that a plugin does not use are dropped
//! when it is linked.
#![allow(missing_docs, unreachable_pub, unsafe_code)]

/// Everything a plugin may call; the other worlds use these types.
pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package moongate:sdk;
            world imports {
                import moongate:plugin/types@0.1.0;
                import moongate:plugin/host@0.1.0;
                import moongate:plugin/shared@0.1.0;
                import moongate:plugin/store@0.1.0;
                import moongate:plugin/endpoints@0.1.0;
                import moongate:plugin/request-keys@0.1.0;
                import moongate:plugin/request@0.1.0;
                import moongate:plugin/response@0.1.0;
                import moongate:plugin/bodies@0.1.0;
                import moongate:plugin/filter-types@0.1.0;
            }
        ",
        world: "moongate:sdk/imports",
        generate_all,
        generate_unused_types: true,
    });
}

macro_rules! exporting {
    ($module:ident, $world:literal, $macro:literal, $bindings:literal, $inline:literal, {$($with:tt)*}) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                inline: $inline,
                world: $world,
                pub_export_macro: true,
                export_macro_name: $macro,
                default_bindings_module: $bindings,
                with: { $($with)* },
            });
        }
    };
}

exporting!(
    configurable,
    "moongate:sdk/configuring",
    "export_configurable",
    "moongate_plugin::bindings::configurable",
    "package moongate:sdk; world configuring { export moongate:plugin/configurable@0.1.0; }",
    {}
);
exporting!(
    balancer,
    "moongate:sdk/balancing",
    "export_balancer",
    "moongate_plugin::bindings::balancer",
    "package moongate:sdk; world balancing { export moongate:plugin/balancer@0.1.0; }",
    {"moongate:plugin/types@0.1.0": crate::bindings::imports::moongate::plugin::types}
);
exporting!(
    request_filter,
    "moongate:sdk/requests",
    "export_request_filter",
    "moongate_plugin::bindings::request_filter",
    "package moongate:sdk; world requests { export moongate:plugin/request-filter@0.1.0; }",
    {
        "moongate:plugin/types@0.1.0": crate::bindings::imports::moongate::plugin::types,
        "moongate:plugin/filter-types@0.1.0": crate::bindings::imports::moongate::plugin::filter_types,
    }
);
exporting!(
    response_filter,
    "moongate:sdk/responses",
    "export_response_filter",
    "moongate_plugin::bindings::response_filter",
    "package moongate:sdk; world responses { export moongate:plugin/response-filter@0.1.0; }",
    {
        "moongate:plugin/types@0.1.0": crate::bindings::imports::moongate::plugin::types,
        "moongate:plugin/filter-types@0.1.0": crate::bindings::imports::moongate::plugin::filter_types,
    }
);
exporting!(
    request_body_filter,
    "moongate:sdk/request-bodies",
    "export_request_body_filter",
    "moongate_plugin::bindings::request_body_filter",
    "package moongate:sdk; world request-bodies { export moongate:plugin/request-body-filter@0.1.0; }",
    {
        "moongate:plugin/types@0.1.0": crate::bindings::imports::moongate::plugin::types,
        "moongate:plugin/filter-types@0.1.0": crate::bindings::imports::moongate::plugin::filter_types,
    }
);
exporting!(
    response_body_filter,
    "moongate:sdk/response-bodies",
    "export_response_body_filter",
    "moongate_plugin::bindings::response_body_filter",
    "package moongate:sdk; world response-bodies { export moongate:plugin/response-body-filter@0.1.0; }",
    {
        "moongate:plugin/types@0.1.0": crate::bindings::imports::moongate::plugin::types,
        "moongate:plugin/filter-types@0.1.0": crate::bindings::imports::moongate::plugin::filter_types,
    }
);

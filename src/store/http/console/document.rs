//! What every document has around its content.

use maud::{DOCTYPE, Markup, html};

use super::assets;

/// A page of nobody in particular.
pub fn bare(title: &str, content: &Markup) -> Markup {
    whole(title, &html! { main id="main" class="bare" tabindex="-1" { p class="brand" { "dcr-edge" } (content) } })
}

/// A whole document: a title, and what is in its body.
pub fn whole(title: &str, inside: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · dcr-edge" }
                link rel="stylesheet" href=(assets::address("console.css"));
                link rel="icon" href=(assets::address("icon.svg")) type="image/svg+xml";
                script src=(assets::address("console.js")) defer {}
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                (inside)
            }
        }
    }
}

//! Sticky sessions: a cookie keeps a client at the endpoint that answered it first, for as long as that lives.
//!
//! ```toml
//! [routes.balancer]
//! plugin = "sticky"
//! config = { cookie = "shop_session", max_age = 3600, secure = true, secret = "any text" }
//! ```
//!
//! - `cookie`: its name, `moongate_session` if absent. `path` (`/`), `domain` (none), `max_age` in seconds (absent: until
//!   the client closes), `secure` (false), `http_only` (true) and `same_site` (`"lax"`, `"strict"` or `"none"`) are its
//!   attributes. With a `max_age` a session that goes on starts anew after that time.
//! - `secret`: its value is a hash of the endpoint's address, and with a secret nobody who sees it can find out the
//!   address, or make one for another endpoint. All gateways need the same.
//!
//! A request with a cookie goes to the endpoint that it names, whatever its weight: weight 0 keeps the sessions that there
//! are and gets no new ones. If there is none, or its endpoint is gone or has just failed the request, the balancer has
//! no opinion, and the gateway sends the request where it does by itself. A response from another endpoint than the
//! cookie names sets it. Nothing is remembered here, so sessions outlive gateways; and as the value depends on nothing
//! but the address, no session moves because another endpoint comes or goes.

mod cookie;

use cookie::{Cookie, Options};
use moongate_plugin::{
    Balancer, Config, Endpoint, Request, Response, ResponseFilter, Turn, Verdict, hash::sip, keys::Key,
};

struct Sticky {
    cookie: Cookie,
    key: Key,
    sessions: Sessions,
}

impl Balancer for Sticky {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        let options: Options = config.parse()?;
        let cookie = Cookie::new(&options)?;
        let sessions = Sessions::new(options.secret.as_deref())?;
        Ok(Self { key: Key::cookie(&*cookie.name), cookie, sessions })
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        self.sessions.update(&endpoints);
        Ok(())
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        let index = self.sessions.endpoint(&self.key.text()?)?;
        if turn.tried(index) { None } else { Some(index) }
    }
}

impl ResponseFilter for Sticky {
    fn on_response(&mut self, request: Request, response: Response) -> Verdict {
        let token = self.sessions.token(&response.endpoint());
        let field = request.header("cookie").unwrap_or_default();
        if self.cookie.find(&field) != Some(&token) {
            response.append("set-cookie", &self.cookie.set(&token));
        }
        Verdict::Next
    }
}

moongate_plugin::plugin!(Sticky: Balancer, ResponseFilter; schema = include_str!("../schema.json"));

/// Which endpoint a token names.
#[derive(Debug, Default)]
struct Sessions {
    key: (u64, u64),
    /// Hash of the address, index; in order.
    endpoints: Vec<(u64, u32)>,
}

impl Sessions {
    fn new(secret: Option<&str>) -> Result<Self, String> {
        let key = match secret {
            None => (0, 0),
            Some("") => return Err("`secret` is empty: any text, the longer the better, or leave it out".into()),
            Some(secret) => (sip((0, 0), secret.as_bytes()), sip((0, 1), secret.as_bytes())),
        };
        Ok(Self { key, endpoints: Vec::new() })
    }

    fn update(&mut self, endpoints: &[Endpoint]) {
        let hashed = |(index, endpoint): (u32, &Endpoint)| (self.hash(&endpoint.address), index);
        self.endpoints = (0..).zip(endpoints).map(hashed).collect();
        self.endpoints.sort_unstable();
    }

    fn hash(&self, address: &str) -> u64 {
        sip(self.key, address.as_bytes())
    }

    /// 16 hexadecimal digits.
    fn token(&self, address: &str) -> String {
        format!("{:016x}", self.hash(address))
    }

    /// The endpoint that has this token. None if there is none, or it is no token.
    fn endpoint(&self, token: &str) -> Option<u32> {
        // Exactly as `token` writes it: what is read otherwise would be set again with each response.
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if token.len() != 16 || !token.bytes().all(digit) {
            return None;
        }
        let hash = u64::from_str_radix(token, 16).ok()?;
        let place = self.endpoints.binary_search_by_key(&hash, |&(hash, _)| hash).ok()?;
        Some(self.endpoints[place].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moongate_plugin::hash::mix;

    fn endpoint(number: u64) -> Endpoint {
        Endpoint { address: format!("10.0.0.{number}:80"), weight: 1, zone: String::new(), labels: vec![] }
    }

    #[test]
    fn no_session_moves_while_its_endpoint_lives() {
        let mut sessions = Sessions::new(Some("secret")).unwrap();
        let tokens: Vec<_> = (0..30).map(|number| sessions.token(&endpoint(number).address)).collect();
        for change in 0..300 {
            // Any of the thirty, in any order.
            let mut list: Vec<_> =
                (0..30).filter(|number| mix(change * 30 + number).is_multiple_of(2)).map(endpoint).collect();
            let first = mix(change) as usize % list.len();
            list.rotate_left(first);
            sessions.update(&list);
            for (number, token) in (0..).zip(&tokens) {
                let lives = list.iter().any(|it| *it.address == endpoint(number).address);
                let found = sessions.endpoint(token).map(|index| &*list[index as usize].address);
                assert_eq!(found, lives.then_some(&*endpoint(number).address));
            }
        }
    }

    #[test]
    fn a_token_tells_nothing_and_depends_on_the_secret() {
        let (one, other, none) = (Sessions::new(Some("a")), Sessions::new(Some("b")), Sessions::new(None));
        let token = |sessions: Result<Sessions, String>| sessions.unwrap().token("10.0.0.1:80");
        let tokens = [token(one), token(other), token(none)];
        assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2] && tokens[0] != tokens[2]);
        assert!(tokens.iter().all(|token| token.len() == 16 && !token.contains("10.0.0.1")));
        assert!(Sessions::new(Some("")).unwrap_err().contains("`secret` is empty"));
    }

    /// So that sessions outlive a new version of this plugin.
    #[test]
    fn tokens_stay_what_they_are() {
        assert_eq!(Sessions::new(None).unwrap().token("10.0.0.1:80"), "f11e23872c2d06ea");
        assert_eq!(Sessions::new(Some("secret")).unwrap().token("[::1]:80"), "18a4605feca12602");
    }

    #[test]
    fn what_is_no_token_of_an_endpoint_names_none() {
        let mut sessions = Sessions::new(None).unwrap();
        sessions.update(&[endpoint(1)]);
        let token = sessions.token(&endpoint(1).address);
        assert_eq!(sessions.endpoint(&token), Some(0));
        for wrong in
            ["", "x", "0123456789abcdef", &token[1..], &token.to_uppercase(), &format!("0{token}"), "+123456789abcdef"]
        {
            assert_eq!(sessions.endpoint(wrong), None, "{wrong}");
        }
        sessions.update(&[]);
        assert_eq!(sessions.endpoint(&token), None);
    }
}

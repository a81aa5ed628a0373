// Going on with a conversation after its connection, or its server, was lost.
//
// A server that keeps conversations gives each a token (docs/survival.md); whoever connects with it
// goes on. The page keeps it for as long as it is open and no longer.

/** The address at which the conversation of this token goes on; the address itself where there is none. */
export function resuming(address, token) {
  if (token === null) return address;
  const url = new URL(address);
  url.searchParams.set("duologue_resume", token);
  return url.href;
}

/**
 * What a `session.created` says of the conversation.
 * @returns {{token: string|null, resumed: boolean}} `resumed`: the server knows what was said before
 */
export function conversationOf(session) {
  const token = session?.duologue?.resume_token;
  return { token: typeof token === "string" ? token : null, resumed: session?.duologue?.resumed === true };
}

// Changes, sent to the station with the token.

const TIMEOUT_MS = 15000;

// The response, or null if the station cannot be reached; shows done, or the reason why not, in answer.
export async function post(path, content, token, answer, done, timeoutMs = TIMEOUT_MS) {
  answer.className = "answer";
  answer.textContent = "…";
  let response = null;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${encodeURI(token)}` },
      body: JSON.stringify(content),
      signal: AbortSignal.timeout(timeoutMs),
    });
    answer.textContent = response.ok ? done : `Refused: ${await errorOf(response)}`;
  } catch {
    answer.textContent = "Not done: no connection to the station.";
  }
  answer.classList.toggle("bad", !response?.ok);
  return response;
}

async function errorOf(response) {
  const { error } = await response.json().catch(() => ({}));
  return error ?? `HTTP ${response.status}`;
}

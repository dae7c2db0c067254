// The command that does the same as a step.

const quoted = (text) => (/^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

export function commandOf(step, { draft, camera, config }) {
  const zone = draft.zones?.[0] ?? {};
  const region = zone.region ? ` --roi ${zone.region.join(",")}` : "";
  const ignored = (zone.ignored ?? []).map((sides) => ` --ignore ${sides.join(",")}`).join("");
  const settled = draft.trigger?.source === "motion" ? " --settled" : "";
  const source = quoted(camera.source ?? "CAMERA");
  const { host } = draft.mqtt ?? {};
  const values = [`camera.source=${source}`, ...(draft.trigger?.source ? [`trigger.source=${draft.trigger.source}`] : []), ...(host ? [`mqtt.host=${quoted(host)}`] : [])];
  return {
    camera: `shiftwatch-agent doctor`,
    region: `shiftwatch-calibrate fit setup/good${region}${ignored} --out bundle`,
    part: `shiftwatch-agent config ${values.join(" ")} > station.yaml`,
    collect: `shiftwatch-agent capture setup/good --camera ${source}${settled}`,
    teach: `shiftwatch-calibrate fit setup/good${region}${ignored} --false-reject-rate ${draft.false_reject_rate ?? 0.01} --out bundle`,
    test: `shiftwatch-calibrate evaluate IMAGES bundle`,
    go: `shiftwatch-agent config ${values.join(" ")} > station.yaml; shiftwatch-agent run --config ${quoted(config)}`,
  }[step];
}

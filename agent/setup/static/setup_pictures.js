// The live picture, and images that only the token opens.

const AGAIN_MS = 500;
const KEPT = 300;

export class Pictures {
  // token: the present one. editor: while it draws, the picture stands still.
  constructor(token, editor) {
    this.token = token;
    this.editor = editor;
    this.isWanted = false;
    this.canvas = document.getElementById("picture");
    this.urls = new Map();
  }

  async fetch(path) {
    return fetch(path, { headers: { Authorization: `Bearer ${encodeURI(this.token())}` }, signal: AbortSignal.timeout(15000) });
  }

  // Show the newest picture, again and again.
  async run() {
    for (let known = -1; ;) {
      let wait = AGAIN_MS;
      if (this.isWanted && this.token() && !this.editor.isDrawing && !document.hidden) {
        try {
          const response = await this.fetch(`setup/picture?after=${known}`);
          if (response.status === 200) {
            await this.draw(await response.blob());
            known = Number(response.headers.get("X-Number"));
            wait = 60;
          }
        } catch { /* the connection shows its state by itself */ }
      }
      await new Promise((done) => setTimeout(done, wait));
    }
  }

  async draw(jpeg) {
    const picture = await createImageBitmap(jpeg);
    if (this.editor.isDrawing) return;
    const { canvas } = this;
    if (canvas.width !== picture.width || canvas.height !== picture.height) Object.assign(canvas, { width: picture.width, height: picture.height });
    canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
  }

  // An address for an image that needs the token.
  url(path) {
    if (!this.urls.has(path)) {
      this.urls.set(path, this.fetch(path).then(async (response) => {
        if (!response.ok) throw new Error("no image");
        return URL.createObjectURL(await response.blob());
      }).catch(() => { this.urls.delete(path); return ""; }));
      if (this.urls.size > KEPT) {
        const [[oldest, address]] = this.urls;
        this.urls.delete(oldest);
        address.then((url) => url && URL.revokeObjectURL(url));
      }
    }
    return this.urls.get(path);
  }

  // An <img> that gets its content when it comes into view.
  image(path, words) {
    const image = document.createElement("img");
    image.alt = words;
    const watch = new IntersectionObserver(async ([{ isIntersecting }]) => {
      if (!isIntersecting) return;
      watch.disconnect();
      const url = await this.url(path);
      if (url) image.src = url;
    }, { rootMargin: "200px" });
    watch.observe(image);
    return image;
  }
}

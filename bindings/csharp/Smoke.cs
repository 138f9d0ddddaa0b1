// Two engines, one content: what the tests run where a C# compiler is installed.
using System;
using System.IO;
using Peas;

public static class Smoke {
    private static void Check(bool good, string what) {
        if (good) return;
        Console.Error.WriteLine("failed: " + what);
        Environment.Exit(1);
    }

    public static void Main(string[] arguments) {
        string folder = arguments[0], source = Path.Combine(folder, "cs.bin"), pea = Path.Combine(folder, "cs.peas"), target = Path.Combine(folder, "cs.out");
        var content = new byte[3000000];
        new Random(1).NextBytes(content);
        File.WriteAllBytes(source, content);
        unsafe {
            Check(sizeof(peas_event_t) == 512 && sizeof(peas_info_t) == 256 && sizeof(peas_error_t) == 256 && sizeof(peas_engine_info_t) == 256, "sizes");
        }
        using (var from = new Engine("listen=127.0.0.1:0", "scope=any"))
        using (var to = new Engine("listen=127.0.0.1:0", "scope=any")) {
            Check(from.Wait(from.Create(source, pea, "name=c#"), 60000), "create");
            Check(Engine.Describe(pea).Contains("\"name\":\"c#\""), "describe");
            Check(from.Wait(from.Share(pea, source), 60000), "share");
            var job = to.Install(pea, target, "trust=file", "peer=127.0.0.1:" + from.Info().port);
            to.WaitAsync(job).Wait();
            Check(Convert.ToBase64String(File.ReadAllBytes(target)) == Convert.ToBase64String(content), "content");
            Check(to.Info(job).bytes_done == 3000000, "info");
            bool complete = false, ended = false;
            while (!ended)
                foreach (var one in to.Poll(60000)) {
                    complete |= one.Kind == peas_event_type_t.PEAS_EVENT_COMPLETE;
                    ended |= one.Kind == peas_event_type_t.PEAS_EVENT_ENDED;
                }
            Check(complete && from.Stats().Contains("bytes_sent"), "events");
            to.Set(0, "upload_limit=1M");
            Check(to.Info().upload_limit == 1048576, "set");
            try {
                to.Install(pea, target);
                Check(false, "an install without trust");
            } catch (PeasException why) {
                Check(why.Status == peas_status_t.PEAS_INVALID && why.Message.Contains("trust="), "why");
            }
            Check(to.Close(2000), "close");
        }
        Console.WriteLine("all well");
    }
}
